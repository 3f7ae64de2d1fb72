//! The enricher against gRPC over HTTP/2.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::{HeaderMap, Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use super::super::{Container, Protocol, cri};
use super::fake::*;
use crate::event::Pod;

/// The body of an answer over HTTP/2.
struct Frames {
    frames: VecDeque<Frame<Bytes>>,
    /// Goes on with this for ever.
    then: Option<Bytes>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.frames.pop_front();
        Poll::Ready(next.or_else(|| self.then.clone().map(Frame::data)).map(Ok))
    }
}

/// One message of gRPC (`grpc/doc/PROTOCOL-HTTP2.md`) and the trailers of success.
fn message(bytes: &[u8]) -> Frames {
    let mut prefixed = vec![0];
    prefixed.extend(u32::try_from(bytes.len()).expect("short").to_be_bytes());
    prefixed.extend(bytes);
    let trailers = HeaderMap::from_iter(
        [("grpc-status", "0")]
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))),
    );
    Frames { frames: [Frame::data(prefixed.into()), Frame::trailers(trailers)].into(), then: None }
}

/// A CRI daemon with an answer for each path.
fn cri_daemon(answer: fn(&str) -> Frames) -> Fake {
    Fake::start(Protocol::Cri, move |_, stream| {
        let serve = async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let mut response = Response::new(answer(request.uri().path()));
                let grpc = header::HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(header::CONTENT_TYPE, grpc);
                std::future::ready(Ok::<_, Infallible>(response))
            });
            stream.set_nonblocking(true).expect("a socket");
            let io = TokioIo::new(tokio::net::UnixStream::from_std(stream).expect("a socket"));
            http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let _ = runtime.block_on(serve);
        false
    })
}

#[test]
fn pods_come_over_grpc() {
    let fake = cri_daemon(|path| {
        let labels = || [("app".to_owned(), "web".to_owned())].into();
        let (id, metadata) = ("s1".to_owned(), None);
        match path {
            cri::LIST_CONTAINERS => {
                let container = cri::Container {
                    id: "c1".into(),
                    pod_sandbox_id: id,
                    ..cri::Container::default()
                };
                message(
                    &cri::ListContainersResponse {
                        containers: vec![container.encode_to_vec().into()],
                    }
                    .encode_to_vec(),
                )
            }
            cri::LIST_POD_SANDBOX => {
                let sandbox = cri::PodSandbox { id, metadata, labels: labels() };
                let items = vec![sandbox.encode_to_vec().into()];
                message(&cri::ListPodSandboxResponse { items }.encode_to_vec())
            }
            _ => Frames { frames: VecDeque::new(), then: None },
        }
    });
    let (_enricher, mut receiver) = start(&fake);
    let batch = next(&mut receiver).expect("a batch");
    let labels = Some([("app".to_owned(), "web".to_owned())].into());
    let pod = Some(Pod { labels, ..Pod::default() });
    let named = |id: &str| Container { id: id.into(), pod: pod.clone(), ..Container::default() };
    assert_eq!(batch, [named("c1"), named("s1")]);
}

/// The error of the first list.
fn cri_error(answer: fn(&str) -> Frames) -> String {
    let fake = cri_daemon(answer);
    let (enricher, _receiver) = start(&fake);
    wait_until("a failure", || enricher.reports()[0].failures > 0);
    enricher.reports()[0].error.clone().expect("an error")
}

#[test]
fn a_message_that_is_too_large_or_never_ends_is_refused() {
    // A message of 4 GiB less a byte, never sent whole.
    let huge = cri_error(|_| Frames {
        frames: [Frame::data(Bytes::from_static(&[0, 255, 255, 255, 255]))].into(),
        then: Some(Bytes::from_static(&[0; 1 << 14])),
    });
    assert!(huge.contains("OutOfRange"), "{huge}");
    // Empty messages without end.
    let endless = cri_error(|_| Frames {
        frames: VecDeque::new(),
        then: Some(Bytes::from_static(&[0; 5 << 10])),
    });
    assert!(endless.contains("no answer within"), "{endless}");
    let garbage = cri_error(|_| message(&[255; 100]));
    assert!(garbage.contains("Internal"), "{garbage}");
}
