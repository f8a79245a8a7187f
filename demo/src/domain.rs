//! A ROS 2 domain of the demo's own, so that it neither hears nor moves another robot on this machine.

use std::net::{Ipv4Addr, UdpSocket};

/// The largest domain whose ports lie below Linux' ephemeral ports.
const LAST: u16 = 101;

/// The largest domain that there is: the ports of the next one are beyond the last port.
const LARGEST: u16 = 232;

/// The domain that ROS_DOMAIN_ID asks for, where it is one and no process of this machine seems to use it; else one that
/// is [`free`].
pub fn own(told: Option<&str>, seed: u32) -> u16 {
    let told = told.and_then(|told| told.parse::<u16>().ok());
    told.filter(|domain| *domain <= LARGEST && is_free(*domain))
        .unwrap_or_else(|| free(seed))
}

/// A domain that no process of this machine seems to use; looked for from `seed` on.
pub fn free(seed: u32) -> u16 {
    let first = (seed % u32::from(LAST)) as u16;
    (0..LAST)
        .map(|k| 1 + (first + k) % LAST)
        .find(|domain| is_free(*domain))
        .unwrap_or(1 + first)
}

/// DDS listens at 7400 + 250 domain (multicast) and 10 above (the first participant).
fn is_free(domain: u16) -> bool {
    let base = 7_400 + 250 * domain;
    [base, base + 10]
        .iter()
        .all(|port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_in_use_is_passed_over() {
        let domain = free(7);
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7_400 + 250 * domain));
        assert!(socket.is_ok());
        assert_ne!(own(Some(&domain.to_string()), 7), domain);
        let next = free(7);
        assert!(next != domain && (1..=LAST).contains(&next), "{domain} {next}");
    }

    #[test]
    fn a_domain_that_was_asked_for_is_taken_where_it_is_one() {
        let domain = free(40);
        assert_eq!(own(Some(&domain.to_string()), 90), domain);
        for none in ["233", "65535", "-1", "robot"] {
            assert!((1..=LAST).contains(&own(Some(none), 90)), "{none}");
        }
    }
}
