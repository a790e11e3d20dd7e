//! Ports that stay free for those for whom they are.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use tokio::net::TcpSocket;

/// A port of 127.0.0.1 that the system gives to nobody else while this lives.
///
/// It is held by a socket that is bound and does not listen. Whoever binds it with `SO_REUSEADDR`, as every server does,
/// can listen there; while nobody listens, connections are refused. So a server can be killed and started again on the
/// same port, and no other program comes between.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    /// A free one.
    ///
    /// # Errors
    /// The machine has none.
    pub fn free() -> Result<Self> {
        let hold = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(([127, 0, 0, 1], 0).into())?;
            Ok::<_, std::io::Error>(Self { address: socket.local_addr()?, _held: socket })
        };
        hold().context("cannot get a free port")
    }

    /// The address with this port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn nobody_answers_until_somebody_listens_and_again_after_that() {
        let port = Port::free().unwrap();
        for _ in 0..3 {
            assert!(TcpStream::connect(port.address()).is_err());
            let _listener = TcpListener::bind(port.address()).unwrap();
            assert!(TcpStream::connect(port.address()).is_ok());
        }
    }
}
