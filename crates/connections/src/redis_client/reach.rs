use std::io::ErrorKind;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The reaction of an address to a new TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The host answers that nothing listens there.
    Refused,
    /// The connection was accepted; nothing is known about the program that did.
    Accepted,
    /// There was no answer.
    Silent,
}

impl Reach {
    /// Tries the address `host:port`, for at most `within`.
    pub async fn of(address: &str, within: Duration) -> Reach {
        match timeout(within, TcpStream::connect(address)).await {
            Ok(Ok(_)) => Reach::Accepted,
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => {
                Reach::Refused
            }
            Ok(Err(_)) | Err(_) => Reach::Silent,
        }
    }

    /// Tries all `addresses`. Silent if any of them is, or if there are none.
    pub async fn of_all(addresses: Vec<String>, within: Duration) -> Reach {
        let all = join_all(addresses.iter().map(|address| Reach::of(address, within))).await;
        match all.iter().all(|reach| *reach == Reach::Refused) {
            _ if all.is_empty() || all.contains(&Reach::Silent) => Reach::Silent,
            true => Reach::Refused,
            false => Reach::Accepted,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn an_address_accepts_refuses_or_is_silent() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let accepting = listener.local_addr().unwrap().to_string();
        let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let refusing = closed.local_addr().unwrap().to_string();
        drop(closed);
        let check = async |addresses: &[&String], expected| {
            let addresses = addresses.iter().map(|address| (*address).clone()).collect();
            assert_eq!(Reach::of_all(addresses, WITHIN).await, expected);
        };
        check(&[&accepting], Reach::Accepted).await;
        check(&[&refusing], Reach::Refused).await;
        check(&[&accepting, &refusing], Reach::Accepted).await;
        check(&[], Reach::Silent).await;
        assert_eq!(Reach::of("no port", WITHIN).await, Reach::Silent);
    }
}
