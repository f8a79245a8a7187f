//! A network that can be cut, between programs of one machine and without any privilege.
//!
//! The programs speak UDP alone ([`mfpo_ros::transport`]), never shared memory. A cut is a filter of the kernel on the
//! sockets of both sides ([`Cut`]): one program receives nothing any more, and what it sends nobody takes in. They run on
//! all the while and know nothing of it, as with a cable that is pulled out.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc::{self, c_int, c_long};

use crate::Process;

/// One program that is cut off from others until this is dropped.
pub struct Cut(Vec<OwnedFd>);

impl Cut {
    /// Cuts `one` off: it hears nothing at all, and `others` do not hear it.
    ///
    /// # Panics
    /// When the kernel does not hand out the sockets: `pidfd_getfd` asks for what a debugger may.
    pub fn off(one: &Process, others: &[&Process]) -> Self {
        let (own, ports) = sockets_of(one.id()).into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        assert!(
            !own.is_empty(),
            "{} has no UDP socket: does it speak UDP?",
            one.id()
        );
        let deaf = [statement(RETURN, 0)];
        own.iter().for_each(|socket| attach(socket, &deaf));
        let mut filtered = own;
        for other in others {
            for (socket, _) in sockets_of(other.id()) {
                attach(&socket, &all_but(&ports));
                filtered.push(socket);
            }
        }
        Self(filtered)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        for socket in &self.0 {
            set(socket, libc::SO_DETACH_FILTER, &0_i32);
        }
    }
}

const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Takes in what does not come from one of these ports. A filter of UDP sees the header, the source's port first.
fn all_but(ports: &[u16]) -> Vec<libc::sock_filter> {
    let mut filter = vec![statement(LOAD_HALF, 0)];
    for port in ports {
        let mut skip_unless_equal = statement(JUMP_EQUAL, u32::from(*port));
        skip_unless_equal.jf = 1;
        filter.extend([skip_unless_equal, statement(RETURN, 0)]);
    }
    filter.push(statement(RETURN, u32::MAX));
    filter
}

fn attach(socket: &OwnedFd, filter: &[libc::sock_filter]) {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("a short filter"),
        filter: filter.as_ptr().cast_mut(),
    };
    set(socket, libc::SO_ATTACH_FILTER, &program);
}

fn set<T>(socket: &OwnedFd, option: c_int, value: &T) {
    let size = libc::socklen_t::try_from(size_of::<T>()).expect("a few bytes");
    // SAFETY: `value` lives as long as the call and `size` is its own; what a `sock_fprog` points to does, too, and the
    // kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            size,
        )
    };
    assert_eq!(result, 0, "option {option}: {}", io::Error::last_os_error());
}

/// The UDP sockets of a program, each with its port.
fn sockets_of(process: u32) -> Vec<(OwnedFd, u16)> {
    let table = fs::read_to_string(format!("/proc/{process}/net/udp")).unwrap_or_default();
    let ports = ports_by_inode(&table);
    let handle = descriptor(libc::SYS_pidfd_open, [process.into(), 0, 0]);
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).expect("a program that runs");
    let sockets = descriptors.filter_map(|entry| {
        let path = entry.ok()?.path();
        let target = fs::read_link(&path).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        let number: c_long = path.file_name()?.to_str()?.parse().ok()?;
        Some((number, *ports.get(inode)?))
    });
    sockets
        .map(|(number, port)| {
            let arguments = [handle.as_raw_fd().into(), number, 0];
            (descriptor(libc::SYS_pidfd_getfd, arguments), port)
        })
        .collect()
}

/// Local port of each UDP socket of a network namespace, by its inode: `/proc/net/udp`.
fn ports_by_inode(table: &str) -> HashMap<&str, u16> {
    let rows = table.lines().skip(1).filter_map(|row| {
        let fields: Vec<&str> = row.split_whitespace().collect();
        let (_, port) = fields.get(1)?.split_once(':')?;
        Some((*fields.get(9)?, u16::from_str_radix(port, 16).ok()?))
    });
    rows.collect()
}

fn descriptor(call: c_long, [a, b, c]: [c_long; 3]) -> OwnedFd {
    // SAFETY: both calls take numbers and write nothing.
    let result = unsafe { libc::syscall(call, a, b, c) };
    let number = c_int::try_from(result).unwrap_or(-1);
    assert!(number >= 0, "system call {call}: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(number) }
}
