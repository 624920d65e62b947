//! The connection limiter: it limits how many connections one peer has open. A peer is an IPv4
//! address, or an IPv6 network of 64 bits, since a host in such a network may use all its addresses.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::tally::Tally;

/// The peers that the limit does not apply to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exempt {
    /// Programs on this machine.
    Loopback,
    /// None.
    Nobody,
}

/// The number of open connections of each peer that is not exempt.
#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    exempt: Exempt,
    counts: Mutex<Tally<IpAddr>>,
}

/// An admitted connection. If it counts towards the limit, it stops counting when this is dropped.
#[derive(Debug)]
pub(super) struct Member(Option<(Arc<Crowd>, IpAddr)>);

impl Crowd {
    /// A limiter that admits up to `most` connections of a peer.
    pub(super) fn new(most: usize, exempt: Exempt) -> Arc<Self> {
        Arc::new(Self { most, exempt, counts: Mutex::default() })
    }

    /// Admits a connection from this address, unless its peer has reached the limit.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Member> {
        if self.exempt == Exempt::Loopback && address.is_loopback() {
            return Some(Member(None));
        }
        let address = network(address);
        let mut counts = self.counts();
        if counts.of(&address) >= self.most {
            return None;
        }
        counts.add(&address);
        Some(Member(Some((self.clone(), address))))
    }

    fn counts(&self) -> MutexGuard<'_, Tally<IpAddr>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of a peer: an IPv4 address, or the first address of an IPv6 network.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        IpAddr::V4(_) => address,
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let Some((crowd, address)) = &self.0 else { return };
        crowd.counts().remove(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_limit_and_others_have_theirs() {
        let crowd = Crowd::new(2, Exempt::Loopback);
        let admit = |text: &str| crowd.admit(address(text));
        let [first, second] = [(); 2].map(|()| admit("192.0.2.1").unwrap());
        assert!(admit("192.0.2.1").is_none());
        let other = admit("192.0.2.2").unwrap();
        drop(first);
        let third = admit("192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none());
        drop((second, third, other));
        assert_eq!(crowd.counts().len(), 0, "what is over is forgotten");
    }

    #[test]
    fn the_addresses_of_one_network_of_ipv6_are_one_peer() {
        let crowd = Crowd::new(1, Exempt::Nobody);
        let _first = crowd.admit(address("2001:db8:1:2::1")).unwrap();
        assert!(crowd.admit(address("2001:db8:1:2:ffff::2")).is_none());
        let _other = crowd.admit(address("2001:db8:1:3::1")).unwrap();
        let _four = crowd.admit(address("192.0.2.1")).unwrap();
        assert!(crowd.admit(address("192.0.2.2")).is_some());
    }

    #[test]
    fn loopback_is_not_counted_if_it_is_exempt() {
        let crowd = Crowd::new(1, Exempt::Loopback);
        let texts = ["127.0.0.1", "127.0.0.1", "127.1.2.3", "::1", "::1"];
        let all = texts.map(|text| crowd.admit(address(text)));
        assert!(all.iter().all(Option::is_some), "{all:?}");
        let crowd = Crowd::new(1, Exempt::Nobody);
        let _one = crowd.admit(address("127.0.0.1")).unwrap();
        assert!(crowd.admit(address("127.0.0.1")).is_none());
    }
}
