//! An allocator that counts, thread by thread: Rust's own allocations, and all that reach libc's `malloc`, those of C and
//! C++ libraries included. Defined in the program itself, these functions take the place of libc's in every library.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Threads that are told apart; later ones share the last place.
const THREADS: usize = 256;
/// A thread's name is read again at every so many allocations: it gets one only after its first.
const NAME_EVERY: u64 = 64;

/// What one thread has allocated.
struct Counts {
    /// By Rust.
    rust: AtomicU64,
    /// Altogether.
    all: AtomicU64,
    bytes: AtomicU64,
    /// Its name, as the kernel gives it: up to fifteen bytes and a zero.
    name: [AtomicU64; 2],
}

static COUNTS: [Counts; THREADS] = [const {
    Counts {
        rust: AtomicU64::new(0),
        all: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        name: [const { AtomicU64::new(0) }; 2],
    }
}; THREADS];
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The place of this thread; without a destructor, so that it needs no allocation itself.
    static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn counts() -> &'static Counts {
    let place = PLACE.get();
    if place < THREADS {
        return &COUNTS[place];
    }
    let place = NEXT.fetch_add(1, Relaxed).min(THREADS - 1);
    PLACE.set(place);
    &COUNTS[place]
}

fn note(bytes: usize) {
    let counts = counts();
    counts.bytes.fetch_add(bytes as u64, Relaxed);
    if counts.all.fetch_add(1, Relaxed) % NAME_EVERY == NAME_EVERY / 2 {
        let mut name = [0_u8; 16];
        // SAFETY: the kernel writes at most 16 bytes.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        let (low, high) = name.split_at(8);
        for (part, bytes) in counts.name.iter().zip([low, high]) {
            part.store(u64::from_ne_bytes(bytes.try_into().unwrap_or_default()), Relaxed);
        }
    }
}

/// Rust's allocator: the system's, counted.
pub struct Counting;

// SAFETY: it is the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        counts().rust.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        counts().rust.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        counts().rust.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

// SAFETY: glibc's own names of its functions, with the signatures that it gives them.
unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(pointer: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(alignment: usize, size: usize) -> *mut c_void;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    note(size);
    // SAFETY: it takes any size.
    unsafe { __libc_malloc(size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    note(count.saturating_mul(size));
    // SAFETY: it takes any sizes and checks their product.
    unsafe { __libc_calloc(count, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(pointer: *mut c_void, size: usize) -> *mut c_void {
    note(size);
    // SAFETY: the caller's pointer comes from these functions, that is from libc's.
    unsafe { __libc_realloc(pointer, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, alignment: usize, size: usize) -> c_int {
    note(size);
    // SAFETY: it takes any size and alignment.
    let pointer = unsafe { __libc_memalign(alignment, size) };
    if pointer.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: `out` is the caller's, to be written.
    unsafe { *out = pointer };
    0
}

/// Is what a C library allocates counted? Everything that is reported rests on it.
pub fn counts_c_libraries() -> bool {
    let before = counts().all.load(Relaxed);
    // SAFETY: the text ends in zero; what `strdup` gives is freed once. The compiler would leave out a pair that it sees.
    unsafe { libc::free(black_box(libc::strdup(black_box(c"counted".as_ptr()))).cast()) };
    counts().all.load(Relaxed) == before + 1
}

/// Rust's allocations, all of them, and their bytes, of the threads of this name.
pub fn of_threads(is_wanted: impl Fn(&str) -> bool) -> [u64; 3] {
    let named = COUNTS.iter().filter(|counts| is_wanted(&name(counts)));
    named.fold([0; 3], |[rust, all, bytes], counts| {
        [
            rust + counts.rust.load(Relaxed),
            all + counts.all.load(Relaxed),
            bytes + counts.bytes.load(Relaxed),
        ]
    })
}

fn name(counts: &Counts) -> String {
    let mut bytes = [0_u8; 17];
    for (part, bytes) in counts.name.iter().zip(bytes.chunks_mut(8)) {
        bytes.copy_from_slice(&part.load(Relaxed).to_ne_bytes());
    }
    let text = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
    text.to_string_lossy().into_owned()
}
