//! The variables that Kubernetes sets in a container for each service, as Docker did for links.

/// Whether Kubernetes sets the variable with this name, after our prefix, for a service whose name is
/// `agentpmt-proxy` or begins so.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let ends = |end: &str| name.strip_suffix(end).is_some_and(is_whole);
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    ends("SERVICE_HOST")
        || ends("SERVICE_PORT")
        || name.split_once("SERVICE_PORT_").is_some_and(|(before, _)| is_whole(before))
        || ends("PORT") && is_url
        || is_of_port(name)
}

/// `PORT_8402_TCP`, and the same with `_PROTO`, `_PORT` or `_ADDR`.
fn is_of_port(name: &str) -> bool {
    let part = ["_PROTO", "_PORT", "_ADDR"].iter().find_map(|part| name.strip_suffix(part));
    let name = part.unwrap_or(name);
    let protocol = ["_TCP", "_UDP", "_SCTP"].iter().find_map(|end| name.strip_suffix(end));
    let Some((before, number)) = protocol.and_then(|name| name.rsplit_once('_')) else {
        return false;
    };
    number.parse::<u16>().is_ok() && before.strip_suffix("PORT").is_some_and(is_whole)
}

/// Whether what stands before is nothing, or the rest of the name of a service.
fn is_whole(before: &str) -> bool {
    before.is_empty() || before.ends_with('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_kubernetes_are_known_and_no_others() {
        let link = "tcp://10.96.0.17:8402";
        for (name, value) in [
            ("SERVICE_HOST", "10.96.0.17"),
            ("SERVICE_PORT", "8402"),
            ("SERVICE_PORT_HTTP", "8402"),
            ("PORT", link),
            ("PORT_8402_TCP", link),
            ("PORT_8402_TCP_PROTO", "tcp"),
            ("PORT_8402_TCP_PORT", "8402"),
            ("PORT_8402_TCP_ADDR", "10.96.0.17"),
            ("PORT_53_UDP_ADDR", "10.96.0.17"),
            // A service `agentpmt-proxy-canary`.
            ("CANARY_SERVICE_HOST", "10.96.0.18"),
            ("CANARY_SERVICE_PORT_HTTP", "8402"),
            ("CANARY_PORT", link),
            ("CANARY_PORT_8402_TCP_ADDR", "10.96.0.18"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
        for (name, value) in [
            ("PORT", "8402"),
            ("LISTEN_PORT", "8402"),
            ("SUPPORT", link),
            ("PORT_HTTP_TCP", link),
            ("SUPPORT_8402_TCP", link),
            ("HOST", "10.96.0.17"),
            ("MICROSERVICE_HOST", "10.96.0.17"),
            ("UPSTREAM_URL", link),
        ] {
            assert!(!is_service_link(name, value), "{name}");
        }
    }
}
