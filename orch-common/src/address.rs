//! Addresses as the maps hold them.

/// An IP address in 16 bytes, network order; IPv4 as `::ffff:a.b.c.d`.
pub type Address = [u8; 16];

const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Every IPv6 address of the host (`::`).
pub const ANY_V6: Address = [0; 16];
/// Every IPv4 address of the host (`::ffff:0.0.0.0`).
pub const ANY_V4: Address = from_v4([0; 4]);

/// The mapped form of an IPv4 address.
#[must_use]
#[inline(always)]
pub const fn from_v4(octets: [u8; 4]) -> Address {
    let [a, b, c, d] = octets;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Whether this is the mapped form of an IPv4 address.
#[must_use]
#[inline(always)]
pub fn is_v4(address: &Address) -> bool {
    address[..12] == MAPPED
}

/// The IPv4 address in the mapped form's last four bytes.
#[must_use]
#[inline(always)]
pub const fn v4_octets(address: &Address) -> [u8; 4] {
    [address[12], address[13], address[14], address[15]]
}

/// The address that stands for "all of this family" in a listener's key.
#[must_use]
#[inline(always)]
pub fn any_of(address: &Address) -> Address {
    if is_v4(address) { ANY_V4 } else { ANY_V6 }
}

/// 127.0.0.1, or `::1`.
#[must_use]
#[inline(always)]
pub const fn loopback_of(v6: bool) -> Address {
    if v6 {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    } else {
        from_v4([127, 0, 0, 1])
    }
}

/// Whether the address is of 127.0.0.0/8 (RFC 1122, 3.2.1.3) or `::1` (RFC 4291, 2.5.3).
#[must_use]
#[inline(always)]
pub fn is_loopback(address: &Address) -> bool {
    if is_v4(address) {
        address[12] == 127
    } else {
        *address == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    }
}

/// Whether the address is of `fe80::/10`, which has a meaning on one link alone (RFC 4291, 2.5.6).
#[must_use]
#[inline(always)]
pub const fn is_link_local(address: &Address) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_is_mapped_and_back() {
        let address = from_v4([10, 1, 2, 3]);
        assert!(is_v4(&address));
        assert_eq!(v4_octets(&address), [10, 1, 2, 3]);
        assert_eq!(any_of(&address), ANY_V4);
    }

    #[test]
    fn a_quarter_of_fe_is_of_a_link() {
        let of = |first, second| {
            let mut address = ANY_V6;
            (address[0], address[1]) = (first, second);
            is_link_local(&address)
        };
        assert!(of(0xfe, 0x80) && of(0xfe, 0xbf));
        assert!(!of(0xfe, 0xc0) && !of(0xfd, 0x80) && !of(0xfe, 0x7f));
        assert!(!is_link_local(&from_v4([169, 254, 0, 1])));
    }

    #[test]
    fn loopback_covers_127_and_one() {
        assert!(is_loopback(&from_v4([127, 9, 9, 9])));
        assert!(!is_loopback(&from_v4([128, 0, 0, 1])));
        let mut one = ANY_V6;
        one[15] = 1;
        assert!(is_loopback(&one));
        assert!(!is_loopback(&ANY_V6));
        assert_eq!(any_of(&one), ANY_V6);
    }
}
