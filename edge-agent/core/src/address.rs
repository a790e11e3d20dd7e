//! Which addresses functions may send requests to.
//!
//! A gateway stands in a network that trusts it. So what is not on the public internet is refused, unless the operator named
//! it: otherwise a function, or whoever decides a name's address, could reach what only the gateway can.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses of IPv4 that are not globally reachable (IANA's registry of special-purpose addresses, RFC 6890), multicast
/// (RFC 5771) and what is reserved (RFC 1112). As the first address, and the number of bits that count.
const NOT_PUBLIC_V4: [([u8; 4], u32); 16] = [
    ([0, 0, 0, 0], 8),       // this network; 0.0.0.0 is this host
    ([10, 0, 0, 0], 8),      // private (RFC 1918)
    ([100, 64, 0, 0], 10),   // behind a carrier's NAT (RFC 6598)
    ([127, 0, 0, 0], 8),     // loopback
    ([169, 254, 0, 0], 16),  // link-local; a cloud's metadata service
    ([172, 16, 0, 0], 12),   // private
    ([192, 0, 0, 0], 24),    // protocol assignments (RFC 6890)
    ([192, 0, 2, 0], 24),    // documentation (RFC 5737)
    ([192, 31, 196, 0], 24), // AS112 (RFC 7535)
    ([192, 88, 99, 0], 24),  // relays of 6to4 (RFC 7526)
    ([192, 168, 0, 0], 16),  // private
    ([198, 18, 0, 0], 15),   // benchmarks (RFC 2544)
    ([198, 51, 100, 0], 24), // documentation
    ([203, 0, 113, 0], 24),  // documentation
    ([224, 0, 0, 0], 4),     // multicast
    ([240, 0, 0, 0], 4),     // reserved, and broadcast
];

/// Whether an address of IPv4 is on the public internet.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = u32::from(address);
    !NOT_PUBLIC_V4.iter().any(|(first, len)| (bits ^ u32::from(Ipv4Addr::from(*first))) >> (32 - len) == 0)
}

/// Whether an address of IPv6 is on the public internet: global unicast (2000::/3, RFC 4291) without the parts that are for
/// something else. All that lies outside is refused, whatever it comes to be used for.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Protocol assignments, among them Teredo, which has an address of IPv4 inside (RFC 4380).
        [0x2001, 0..=0x01ff, ..] => false,
        // Documentation (RFC 3849, RFC 9637).
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // 6to4, with an address of IPv4 inside (RFC 3056).
        [0x2002, ..] => false,
        [first, ..] => first >> 13 == 0b001,
    }
}

/// The address of IPv4 that is meant, where one of IPv6 only wraps it: mapped (RFC 4291) or translated (RFC 6052).
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => address,
    }
}

/// Whether an address is on the public internet, in whatever form it is written.
pub fn is_public(address: IpAddr) -> bool {
    match unwrapped(address) {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// Which addresses may be reached: public ones, and those that an operator named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reachable(pub Vec<IpNet>);

impl Reachable {
    /// Whether this one may be.
    pub fn permits(&self, address: IpAddr) -> bool {
        let meant = unwrapped(address);
        is_public(meant) || self.0.iter().any(|net| net.contains(&meant) || net.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::format;
    use std::vec;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_not_on_the_public_internet_is_refused() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        ];
        for address in refused {
            assert!(!is_public(ip(address)), "{address}");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
            "3fff:1000::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ];
        for address in public {
            assert!(is_public(ip(address)), "{address}");
        }
    }

    #[test]
    fn what_an_operator_named_is_permitted_however_it_is_wrapped() {
        let reachable = Reachable(vec!["192.168.1.0/24".parse().unwrap(), "fd00:1::/32".parse().unwrap()]);
        for address in ["192.168.1.7", "::ffff:192.168.1.7", "64:ff9b::192.168.1.7", "fd00:1::5", "9.9.9.9"] {
            assert!(reachable.permits(ip(address)), "{address}");
        }
        for address in ["192.168.2.7", "::ffff:192.168.2.7", "127.0.0.1", "fd00:2::5", "::1"] {
            assert!(!reachable.permits(ip(address)), "{address}");
        }
    }

    proptest! {
        /// Against what the standard library says, in every form that has an address of IPv4 inside.
        #[test]
        fn no_private_address_passes_in_any_form(bits: u32, prefix in 0usize..8) {
            // Most addresses are public: every other case is steered into the ranges that matter.
            let bits = match prefix {
                0 => 0x7f00_0000 | (bits >> 8),
                1 => 0x0a00_0000 | (bits >> 8),
                2 => 0xc0a8_0000 | (bits >> 16),
                3 => 0xac10_0000 | (bits >> 12),
                4 => 0xa9fe_0000 | (bits >> 16),
                _ => bits,
            };
            let v4 = Ipv4Addr::from(bits);
            let known = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            let forms = [
                IpAddr::V4(v4),
                IpAddr::V6(v4.to_ipv6_mapped()),
                ip(&format!("64:ff9b::{v4}")),
            ];
            for form in forms {
                prop_assert!(!(known && is_public(form)), "{form}");
                prop_assert_eq!(is_public(form), is_public(IpAddr::V4(v4)));
            }
            // Forms that nobody needs are refused, whatever is inside.
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            prop_assert!(!is_public(IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low))));
            prop_assert!(!is_public(IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low))));
            prop_assert!(!is_public(IpAddr::V6(Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1))));
            prop_assert!(!is_public(IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low))));
        }
    }
}
