//! Connections between processes: how they are dialled and served.

use hay_common::limits::{
    RPC_BULK_TIMEOUT, RPC_CALLS_MAX, RPC_CONNECT_TIMEOUT, RPC_CONNECTION_WINDOW_BYTES, RPC_KEEPALIVE,
    RPC_STREAM_WINDOW_BYTES,
};
use tonic::codegen::http::uri::Authority;
use tonic::transport::{Channel, Endpoint, Server};

/// The connections to one peer: bulk streams must not stand before small calls.
#[derive(Debug, Clone)]
pub struct Channels {
    /// For unary calls.
    pub small: Channel,
    /// For streams.
    pub bulk: Channel,
}

/// An address that can't be dialled.
#[derive(Debug, thiserror::Error)]
#[error("{address:?} is not an address of the form HOST:PORT")]
pub struct AddressError {
    address: String,
}

impl Channels {
    /// Connections to `address` (`HOST:PORT`), opened at their first use and again whenever they break.
    pub fn lazy(address: &str) -> Result<Self, AddressError> {
        let endpoint = endpoint(address)?;
        Ok(Self { small: endpoint.connect_lazy(), bulk: endpoint.connect_lazy() })
    }
}

/// `address` (`HOST:PORT`) with the cluster's settings, for whoever connects by other means than TCP.
pub fn endpoint(address: &str) -> Result<Endpoint, AddressError> {
    let bad = || AddressError { address: address.to_owned() };
    // What else a URL may hold would be called somewhere else than meant, for ever: no port is port 80.
    let authority: Authority = address.parse().map_err(|_| bad())?;
    if authority.port_u16().is_none() || authority.host().is_empty() || address.contains('@') {
        return Err(bad());
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
    Ok(endpoint
        .connect_timeout(RPC_CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(RPC_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(RPC_CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(RPC_KEEPALIVE)
        .keep_alive_timeout(RPC_KEEPALIVE)
        .keep_alive_while_idle(true))
}

/// A server with the cluster's settings; services are added to it.
pub fn server() -> Server {
    // A connection has no more streams than the guard lets in anyway; the rest waits in HTTP/2.
    let streams_max = u32::try_from(RPC_CALLS_MAX).unwrap_or(u32::MAX);
    Server::builder()
        .tcp_nodelay(true)
        .max_concurrent_streams(streams_max)
        .initial_stream_window_size(RPC_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(RPC_CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(RPC_KEEPALIVE))
        .http2_keepalive_timeout(Some(RPC_KEEPALIVE))
}

/// The keep-alive must find a dead peer long before a bulk stream's deadline does.
const _: () = assert!(RPC_KEEPALIVE.as_secs() * 4 < RPC_BULK_TIMEOUT.as_secs());
