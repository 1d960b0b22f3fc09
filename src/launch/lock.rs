//! `--lock`: the command has a network of its own, with nothing in it but the way to the proxy.
//!
//! The step before the command makes the listeners inside of that network, at the very ports that the command's
//! variables name, and hands them out over a socket; who accepts on them stays outside.
//!
//! Invariant: the command starts only when its listeners are in the hands of who serves them.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use tokio::net::UnixListener;

/// The most listeners of one command: the proxy's three, and local services.
pub const MOST_PORTS: usize = 32;

/// What the network of the command has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// The socket over which the listeners go out.
    pub socket: PathBuf,
    /// The ports on 127.0.0.1 that are listened on.
    pub ports: Vec<u16>,
}

impl Inside {
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut all = vec![OsString::from("--socket"), self.socket.clone().into()];
        for port in &self.ports {
            all.extend([OsString::from("--port"), port.to_string().into()]);
        }
        all
    }

    pub(super) fn parse(rest: &[OsString]) -> (Option<Self>, &[OsString]) {
        let (socket, mut rest) = match rest {
            [name, socket, more @ ..] if name == "--socket" => (socket, more),
            _ => return (None, rest),
        };
        let mut ports = Vec::new();
        while let [name, port, more @ ..] = rest {
            let Some(port) = port.to_str().and_then(|port| port.parse().ok()).filter(|_| name == "--port") else {
                break;
            };
            ports.push(port);
            rest = more;
        }
        (Some(Self { socket: socket.into(), ports }), rest)
    }

    /// Makes the listeners and hands them out. This process is in the new network already.
    pub(super) fn open(&self) -> Result<(), String> {
        loopback_up().map_err(|error| format!("the loopback device cannot be started: {error}"))?;
        let mut listeners = Vec::new();
        for port in &self.ports {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            listeners.push(TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?);
        }
        self.hand_out(&listeners).map_err(|error| format!("the listeners cannot be handed out: {error}"))
    }

    fn hand_out(&self, listeners: &[TcpListener]) -> io::Result<()> {
        let mut stream = UnixStream::connect(&self.socket)?;
        let files: Vec<_> = listeners.iter().map(|listener| listener.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_PORTS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::ErrorKind::ArgumentListTooLong.into());
        }
        rustix::net::sendmsg(&stream, &[IoSlice::new(b"L")], &mut control, SendFlags::empty())?;
        // The answer says that somebody serves them.
        let mut answer = [0u8; 1];
        stream.read_exact(&mut answer)
    }
}

/// Waits for the listeners of [`Inside`] on `socket`, in the order of its ports.
///
/// # Errors
/// When they do not come, or from somebody else.
pub async fn listeners(socket: &UnixListener, count: usize) -> io::Result<Vec<tokio::net::TcpListener>> {
    let (stream, _) = socket.accept().await?;
    if stream.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.readable().await?;
    let mut stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let files = received(&stream)?;
    if files.len() != count {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut listeners = Vec::new();
    for file in files {
        let listener = TcpListener::from(file);
        listener.set_nonblocking(true)?;
        listeners.push(tokio::net::TcpListener::from_std(listener)?);
    }
    stream.write_all(b"K")?;
    Ok(listeners)
}

fn received(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_PORTS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let messages = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(messages.flatten().collect())
}

/// Binds the socket that the listeners come over.
///
/// # Errors
/// The operating system's.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    UnixListener::bind(path)
}

/// Starts the loopback device of a new network, by the one message that rtnetlink(7) has for it.
#[cfg(target_os = "linux")]
fn loopback_up() -> io::Result<()> {
    const NEWLINK: u16 = 16;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const UP: u32 = 1;
    // The first device of every network.
    const LOOPBACK: u32 = 1;
    // NETLINK_ROUTE is protocol 0.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let mut message = Vec::with_capacity(32);
    message.extend_from_slice(&32u32.to_ne_bytes());
    message.extend_from_slice(&NEWLINK.to_ne_bytes());
    message.extend_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
    // Sequence and sender, then family, padding and type: nothing.
    message.extend_from_slice(&[0; 12]);
    message.extend_from_slice(&LOOPBACK.to_ne_bytes());
    // What is set, and which of it counts.
    message.extend_from_slice(&UP.to_ne_bytes());
    message.extend_from_slice(&UP.to_ne_bytes());
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0u8; 256];
    let (count, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    // netlink(7): a header of 16 bytes, then the error, 0 where there is none.
    let error = answer.get(..count).and_then(|answer| answer.get(16..20)).and_then(|error| error.try_into().ok());
    match error.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn listeners_are_handed_from_one_process_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock.sock");
        let socket = bind(&path).unwrap();
        let made: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = made.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let inside = Inside { socket: path, ports: Vec::new() };
        let handing = std::thread::spawn(move || inside.hand_out(&made));
        let got = listeners(&socket, 3).await.unwrap();
        handing.join().unwrap().unwrap();
        assert_eq!(got.iter().map(|l| l.local_addr().unwrap()).collect::<Vec<_>>(), addresses);
    }

    #[test]
    fn what_the_network_has_is_itself_after_its_way_through_arguments() {
        let inside = Inside { socket: "/tmp/x".into(), ports: vec![80, 7878] };
        let words = [inside.arguments(), vec!["--".into()]].concat();
        assert_eq!(Inside::parse(&words), (Some(inside), &words[6..]));
    }
}
