//! `[requests]`: what functions may send HTTP requests to.

use std::net::IpAddr;

use agent_core::address::Reachable;
use function_package::checked::{Table, integer, parsed};
use ipnet::IpNet;

/// Most networks: every address is compared with each.
const MAX_NETWORKS: usize = 64;

/// The largest body of an answer, if nothing is said: that of a large MQTT message.
const DEFAULT_ANSWER_KIB: usize = 256;

/// What functions may send requests to.
#[derive(Clone, Debug)]
pub struct Requests {
    /// Public addresses, and private ones that are named.
    pub private_addresses: Reachable,
    /// Largest body of an answer, in bytes.
    pub max_answer_bytes: usize,
}

pub(super) fn read(t: &mut Table<'_, '_>) -> Requests {
    let allowed = "a network such as \"192.168.1.0/24\", or an address";
    let networks = t.list("private_addresses", 0..=MAX_NETWORKS, parsed(allowed, network));
    let max_answer_kib = t.optional("max_answer_kib", integer(1..=super::MAX_HTTP_BODY_KIB));
    Requests {
        private_addresses: Reachable(networks),
        max_answer_bytes: max_answer_kib.unwrap_or(DEFAULT_ANSWER_KIB) << 10,
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|error| error.to_string())?,
    };
    // More may have been meant than is said.
    if network.trunc() != network {
        return Err(format!("has bits behind its prefix; did you mean \"{}\"?", network.trunc()));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    const HEAD: &str = "[gateway]\ndata_dir = \"d\"\n[mqtt.listen]\naddress = \"[::1]:1\"\n";

    #[test]
    fn nothing_private_is_reached_unless_it_is_named() {
        let parse = |rest: &str| Config::parse("agent.toml", &format!("{HEAD}{rest}"), Path::new(""));
        let default = parse("").unwrap().requests;
        assert!(default.private_addresses.0.is_empty());
        assert_eq!(default.max_answer_bytes, 256 << 10);
        let set = parse("[requests]\nprivate_addresses = [\"192.168.1.0/24\", \"::1\"]\nmax_answer_kib = 1\n").unwrap();
        let permits = |address: &str| set.requests.private_addresses.permits(address.parse().unwrap());
        assert!(permits("192.168.1.9") && permits("::1") && !permits("::2") && !permits("127.0.0.1"));
        assert_eq!(set.requests.max_answer_bytes, 1_024);

        let text = "[requests]\nprivate_addresses = [\"192.168.1.1/24\", \"x\"]\nmax_answer_kib = 0\n";
        let found = parse(text).err().map(|mistakes| mistakes.to_string()).unwrap_or_default();
        let begins = [
            "agent.toml:6:23: requests.private_addresses[1]: is \"192.168.1.1/24\": has bits behind its prefix; did you mean \
             \"192.168.1.0/24\"?",
            "agent.toml:6:41: requests.private_addresses[2]: is \"x\"",
            "agent.toml:7:18: requests.max_answer_kib: is 0",
        ];
        assert_eq!(found.lines().count(), begins.len(), "{found}");
        for (line, begin) in found.lines().zip(begins) {
            assert!(line.starts_with(begin), "{line}\n{begin}");
        }
    }
}
