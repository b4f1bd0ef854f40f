//! gRPC over turmoil's TCP: what dials, what accepts, and the record of what arrives.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use hay_proto::rpc::transport::{self, AddressError, Channels};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

use crate::disk::MachineDisk;
use crate::trace::Trace;

thread_local! {
    /// The trace of the simulation that runs on this thread.
    static TRACE: RefCell<Option<Arc<Trace>>> = const { RefCell::new(None) };
    /// The disks of the machines in it.
    static DISKS: RefCell<BTreeMap<IpAddr, MachineDisk>> = const { RefCell::new(BTreeMap::new()) };
}

/// What a machine whose process has died in the middle of something still sends in that turn goes nowhere.
pub fn silent_once_dead(machine: IpAddr, disk: MachineDisk) {
    DISKS.with_borrow_mut(|disks| disks.insert(machine, disk));
}

fn is_dead(machine: IpAddr) -> bool {
    DISKS.with_borrow(|disks| disks.get(&machine).is_some_and(MachineDisk::has_died))
}

/// What arrives is noted there from now on.
pub fn note_to(trace: Option<Arc<Trace>>) {
    TRACE.set(trace);
}

/// One end of a connection.
pub struct Wire(TcpStream);

impl Connected for Wire {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.0).poll_read(cx, into);
        if read.is_ready() {
            let came = &into.filled()[before..];
            TRACE.with_borrow(|trace| {
                if let (Some(trace), Ok(here), Ok(there)) = (trace, self.0.local_addr(), self.0.peer_addr()) {
                    trace.arrived(there, here, came);
                }
            });
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.0.local_addr().is_ok_and(|here| is_dead(here.ip())) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

type Dialling = Pin<Box<dyn Future<Output = io::Result<TokioIo<Wire>>> + Send>>;

fn connect(uri: Uri) -> Dialling {
    Box::pin(async move {
        let address = uri.authority().ok_or(io::ErrorKind::InvalidInput)?.to_string();
        Ok(TokioIo::new(Wire(TcpStream::connect(address).await?)))
    })
}

/// Connections to `address` (`MACHINE:PORT`), opened at their first use.
pub fn dial(address: &str) -> Result<Channels, AddressError> {
    let endpoint = transport::endpoint(address)?;
    let connector = tower::service_fn(connect);
    Ok(Channels {
        small: endpoint.connect_with_connector_lazy(connector),
        bulk: endpoint.connect_with_connector_lazy(connector),
    })
}

/// Takes `port` of the machine that this runs on; the connections that come to it.
pub async fn listen(port: u16) -> io::Result<impl Stream<Item = io::Result<Wire>> + Send + 'static> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    Ok(futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await;
        Some((accepted.map(|(stream, _)| Wire(stream)), listener))
    }))
}
