//! The connection limiter: it limits how many connections one peer has open. A peer is an IPv4
//! address, or an IPv6 network of 64 bits, since a host in such a network may use all its addresses.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::tally::Tally;

/// The number of open connections of each peer that the limit applies to.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    most: usize,
    limits_loopback: bool,
    counts: Mutex<Tally<IpAddr>>,
}

/// The permit of an open connection. If it counts towards the limit, it stops when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit(Option<(Arc<ConnectionLimiter>, IpAddr)>);

impl ConnectionLimiter {
    /// A limiter that lets a peer have up to `most` connections. Programs on this machine may have any
    /// number, unless `limits_loopback`.
    pub(super) fn new(most: usize, limits_loopback: bool) -> Arc<Self> {
        Arc::new(Self { most, limits_loopback, counts: Mutex::default() })
    }

    /// A permit for a connection from this address, unless its peer has reached the limit.
    pub(super) fn permit(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        if address.is_loopback() && !self.limits_loopback {
            return Some(ConnectionPermit(None));
        }
        let address = network(address);
        let mut counts = self.counts();
        if counts.of(&address) >= self.most {
            return None;
        }
        counts.add(&address);
        Some(ConnectionPermit(Some((self.clone(), address))))
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

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Some((limiter, address)) = &self.0 else { return };
        limiter.counts().remove(address);
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
        let limiter = ConnectionLimiter::new(2, false);
        let permit = |text: &str| limiter.permit(address(text));
        let [first, second] = [(); 2].map(|()| permit("192.0.2.1").unwrap());
        assert!(permit("192.0.2.1").is_none());
        let other = permit("192.0.2.2").unwrap();
        drop(first);
        let third = permit("192.0.2.1").unwrap();
        assert!(permit("192.0.2.1").is_none());
        drop((second, third, other));
        assert_eq!(limiter.counts().len(), 0, "what is over is forgotten");
    }

    #[test]
    fn the_addresses_of_one_network_of_ipv6_are_one_peer() {
        let limiter = ConnectionLimiter::new(1, true);
        let _first = limiter.permit(address("2001:db8:1:2::1")).unwrap();
        assert!(limiter.permit(address("2001:db8:1:2:ffff::2")).is_none());
        let _other = limiter.permit(address("2001:db8:1:3::1")).unwrap();
        let _four = limiter.permit(address("192.0.2.1")).unwrap();
        assert!(limiter.permit(address("192.0.2.2")).is_some());
    }

    #[test]
    fn loopback_is_not_counted_unless_it_is_limited() {
        let limiter = ConnectionLimiter::new(1, false);
        let texts = ["127.0.0.1", "127.0.0.1", "127.1.2.3", "::1", "::1"];
        let all = texts.map(|text| limiter.permit(address(text)));
        assert!(all.iter().all(Option::is_some), "{all:?}");
        let limiter = ConnectionLimiter::new(1, true);
        let _one = limiter.permit(address("127.0.0.1")).unwrap();
        assert!(limiter.permit(address("127.0.0.1")).is_none());
    }
}
