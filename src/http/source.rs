//! Where a request comes from, for rates and for the record: the peer of its connection, or what a proxy that the
//! operator trusts says of it.
//!
//! `X-Forwarded-For` is a list that each proxy writes to the end of; whoever asks may have written its beginning. So it
//! is read from the end, one address for each proxy that is trusted, and the first that is not is the source. Nothing is
//! read of a peer that is not trusted: it could name anybody.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

/// Addresses of one network, as CIDR (RFC 4632) writes them: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Reads `ADDRESS/PREFIX` or `ADDRESS`. `None` for anything else, bits beyond the prefix included: they are a
    /// mistake that would widen what is meant.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(head, tail)| (head, Some(tail)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
        };
        let network = Self { address, prefix };
        (prefix <= most && network.masked(address) == network.bits(address)).then_some(network)
    }

    /// Whether an address belongs to it. An IPv4 address that is mapped into IPv6 is the IPv4 address.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && self.masked(address) == self.bits(self.address)
    }

    fn bits(self, address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    fn masked(self, address: IpAddr) -> u128 {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
        self.bits(address) & mask
    }
}

/// The source of a request.
pub(super) fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut source = peer;
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut said = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    while is_trusted(source) {
        // What is no address ends the walk: a trusted proxy stands for what it lets through.
        let Some(before) = said.next().and_then(address) else { break };
        source = before;
    }
    source
}

/// An address as proxies write it, some with a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let plain = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = plain.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|found| found.ip()));
    address.map(|found: IpAddr| found.to_canonical())
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn source(peer: &str, lines: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "127.0.0.1", "fd00::/8"].map(|text| Network::parse(text).unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        of(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn stranger_cannot_name_another_source() {
        assert_eq!(source("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(source("10.0.0.1", &["198.51.100.7, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(source("10.0.0.1", &["198.51.100.7", "192.0.2.1"]), "192.0.2.1", "lines are one list");
    }

    #[test]
    fn chain_of_trusted_proxies_is_walked_to_its_first_stranger() {
        assert_eq!(source("10.0.0.1", &["192.0.2.1, 10.2.0.1, fd00::5"]), "192.0.2.1");
        assert_eq!(source("10.0.0.1", &["192.0.2.1,[fd00::5]:4711"]), "192.0.2.1");
        assert_eq!(source("::ffff:10.0.0.1", &["192.0.2.1:80"]), "192.0.2.1");
        assert_eq!(source("10.0.0.1", &["10.9.9.9, 10.0.0.2"]), "10.9.9.9", "all of them are trusted");
    }

    #[test]
    fn what_is_no_address_leaves_the_proxy_that_let_it_through() {
        for line in ["", "unknown", "192.0.2.1;", "192.0.2.1, ", "_hidden", "192.0.2", "\u{e9}"] {
            assert_eq!(source("10.0.0.1", &[line]), "10.0.0.1", "{line:?}");
        }
        assert_eq!(source("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn network_is_read_strictly() {
        for good in ["10.0.0.0/8", "192.0.2.1", "192.0.2.1/32", "0.0.0.0/0", "::/0", "fd00::/8", "::1"] {
            assert!(Network::parse(good).is_some(), "{good}");
        }
        for bad in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10/8",
            "",
            "a/8",
            "fd00::1/8",
            "::/129",
        ] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
        let all = Network::parse("0.0.0.0/0").unwrap();
        assert!(all.contains("255.255.255.255".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
    }
}
