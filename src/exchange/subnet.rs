//! Addresses and subnets, as `WSGITrustedProxies` names them.
//!
//! Names are never looked up: what a client wrote into a header must not make the server ask a
//! name server.

#![forbid(unsafe_code)]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One address or a subnet, IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The network; an IPv4 one is in the first four bytes. Bits outside of the mask are 0.
    network: [u8; 16],
    mask: [u8; 16],
    v6: bool,
}

/// An address in its usual text form, without zone; an IPv4-mapped IPv6 address is IPv4.
pub fn address(text: &[u8]) -> Option<IpAddr> {
    let address: IpAddr = core::str::from_utf8(text).ok()?.parse().ok()?;
    Some(address.to_canonical())
}

impl Subnet {
    /// What httpd's own `Require ip` takes: an address, `address/bits`, `address/netmask` or the
    /// first parts of an IPv4 address (`10.1` is `10.1.0.0/16`). `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Subnet> {
        let text = core::str::from_utf8(text).ok()?;
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        match (address.parse(), length) {
            (Ok(IpAddr::V4(address)), None) => Some(Subnet::v4(address, u32::MAX)),
            (Ok(IpAddr::V4(address)), Some(length)) => Some(Subnet::v4(address, v4_mask(length)?)),
            (Ok(IpAddr::V6(address)), length) => {
                let bits = length.map_or(Some(128), |length| number(length, 128))?;
                match address.to_ipv4_mapped() {
                    // What it covers are IPv4 addresses, and they are compared as such.
                    Some(inner) => Some(Subnet::v4(inner, v4_bits(bits.checked_sub(96)?))),
                    None => Some(Subnet::v6(address, bits)),
                }
            }
            (Err(_), None) => partial(address),
            (Err(_), Some(_)) => None,
        }
    }

    fn v4(address: Ipv4Addr, mask: u32) -> Subnet {
        let wide = |number: u32| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            bytes
        };
        Subnet {
            network: wide(u32::from(address) & mask),
            mask: wide(mask),
            v6: false,
        }
    }

    fn v6(address: Ipv6Addr, bits: u32) -> Subnet {
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        Subnet {
            network: (u128::from(address) & mask).to_be_bytes(),
            mask: mask.to_be_bytes(),
            v6: true,
        }
    }

    /// Whether `address` lies within; see [`address`] for IPv4-mapped ones.
    pub fn contains(&self, address: IpAddr) -> bool {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes = address.octets(),
        }
        let same = |((byte, mask), network): ((&u8, &u8), &u8)| byte & mask == *network;
        self.v6 == address.is_ipv6() && bytes.iter().zip(&self.mask).zip(&self.network).all(same)
    }
}

/// A decimal number up to `most`.
fn number(text: &str, most: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 3 && text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number <= most)
}

fn v4_bits(bits: u32) -> u32 {
    u32::MAX.checked_shl(32 - bits).unwrap_or(0)
}

/// What follows the slash: a number of bits or a netmask.
fn v4_mask(text: &str) -> Option<u32> {
    match number(text, 32) {
        Some(bits) => Some(v4_bits(bits)),
        None => text.parse().ok().map(|mask: Ipv4Addr| u32::from(mask)),
    }
}

/// The first parts of an IPv4 address; a dot may follow.
fn partial(text: &str) -> Option<Subnet> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut address = [0; 4];
    let mut count = 0;
    for part in text.split('.') {
        let leading_zero = part.len() > 1 && part.starts_with('0');
        let value = number(part, 255).filter(|_| !leading_zero && count < 3)?;
        address[count] = value as u8;
        count += 1;
    }
    Some(Subnet::v4(address.into(), v4_bits(8 * count as u32)))
}

#[cfg(test)]
mod tests {
    use super::{Subnet, address};

    #[test]
    fn subnets_cover_what_they_say() {
        for (subnet, within, without) in [
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.1.2.3/8", "10.255.1.2", "11.0.0.0"),
            ("10.0.0.0/255.255.0.0", "10.0.7.7", "10.1.0.0"),
            ("192.168.1.128/25", "192.168.1.200", "192.168.1.100"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("10", "10.3.2.1", "11.3.2.1"),
            ("10.", "10.3.2.1", "11.3.2.1"),
            ("172.16", "172.16.2.1", "172.17.2.1"),
            ("172.16.5", "172.16.5.9", "172.16.6.9"),
            ("::1", "::1", "::2"),
            ("::1", "::1", "127.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("2001:DB8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("fe80::/10", "febf::1", "fec0::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ] {
            let parsed = Subnet::parse(subnet.as_bytes()).unwrap_or_else(|| panic!("{subnet}"));
            let holds = |text: &str| parsed.contains(address(text.as_bytes()).unwrap());
            assert!(holds(within), "{subnet} {within}");
            assert!(!holds(without), "{subnet} {without}");
        }
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.0/255.255",
            "10.0/16",
            "10.0.0.256",
            "1.2.3.4.5",
            "010.1.1.1",
            "010",
            "256",
            "1..2",
            ".1",
            "10.x",
            "::1/129",
            "::1/255.0.0.0",
            "::ffff:10.0.0.0/90",
            "[::1]",
            "fe80::1%eth0",
            "localhost",
            "2001:db8",
            "10.0.0.1\0",
            "10.0.0.1 ",
            "*",
        ] {
            assert_eq!(Subnet::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Subnet::parse(b"\xff"), None);
    }
}
