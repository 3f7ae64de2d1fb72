//! One exchange over one connection to a Unix socket: HTTP/1.1 for REST, HTTP/2 for gRPC.
//!
//! All of a connection lives in the future that uses it: dropping that, as a time-out does, closes
//! the socket and leaves no task behind.

use std::future::Future;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};

use anyhow::{Context, Result, anyhow};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::http::uri::PathAndQuery;
use hyper::rt::Executor;
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;
use tower_service::Service;

/// The largest answer that is read, in bytes: 10,000 containers with a kilobyte each.
pub const MAX_BYTES: usize = 16 << 20;

/// Sockets have no host name, but the protocols want one.
const HOST: &str = "localhost";

/// The longest message of a daemon's that is kept, in characters.
const MESSAGE_CHARS: usize = 200;

/// Asks with GET; the status and the whole body.
pub async fn get(socket: &Path, path: &str) -> Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(connect(socket).await?)).await?;
    let request = Request::get(path).header(header::HOST, HOST).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_BYTES).collect().await;
        Ok((head.status, body.map_err(|error| anyhow!(error))?.to_bytes()))
    };
    with(connection, exchange).await.with_context(|| format!("GET {path}"))
}

/// Calls a method, `/package.Service/Method`, that has one answer.
pub async fn call<Q, A>(socket: &Path, method: &'static str, question: Q) -> Result<A>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let io = TokioIo::new(connect(socket).await?);
    let (sender, connection) = http2::handshake(Tasks::default(), io).await?;
    let origin = Uri::from_static("http://localhost");
    let mut client =
        Grpc::with_origin(Channel(sender), origin).max_decoding_message_size(MAX_BYTES);
    let exchange = async {
        client.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        let question = tonic::Request::new(question);
        let answer = client.unary(question, PathAndQuery::from_static(method), codec).await;
        Ok(answer.map_err(|status| anyhow!(describe(&status)))?.into_inner())
    };
    with(connection, exchange).await.with_context(|| format!("calling {method}"))
}

async fn connect(socket: &Path) -> Result<UnixStream> {
    UnixStream::connect(socket).await.context("connecting")
}

/// Drives a connection as long as the exchange over it needs. A peer may close after its answer:
/// the connection ends then with parts of the answer still unread.
async fn with<T>(connection: impl Future, exchange: impl Future<Output = Result<T>>) -> Result<T> {
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        done = &mut exchange => return done,
        _ = connection => {}
    }
    exchange.await
}

/// What a daemon answered instead; its words may be hostile.
fn describe(status: &tonic::Status) -> String {
    let message: String = status.message().chars().take(MESSAGE_CHARS).collect();
    format!("{:?}: {}", status.code(), message.escape_debug())
}

/// Tasks of an HTTP/2 connection; they end when it is dropped.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(future);
    }
}

/// hyper's connection as tonic wants it.
struct Channel(http2::SendRequest<Body>);

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
