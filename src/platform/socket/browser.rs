use std::cell::RefCell;

use async_lock::Mutex;
use futures_channel::{mpsc, oneshot};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{BinaryType, CloseEvent, MessageEvent, WebSocket};

use super::{Connection, MESSAGE_BYTES_MAX, unavailable};
use crate::base::{Error, Result};
use crate::platform::{Task, sleep_ms};

/// More than this is not put into the host's buffer: it has no end, and no way to take something back.
const BUFFERED_BYTES_MAX: u32 = 1 << 20;
/// The host does not tell when its buffer drains; it is looked at again after so long.
const BUFFERED_LOOK_MS: u64 = 20;

const NO_ANSWER: &str = "the server does not answer, or not as a hub does";

type Received = Result<Option<Vec<u8>>>;

thread_local! {
    static MAKE: RefCell<Option<js_sys::Function>> = const { RefCell::new(None) };
    static DOWNLOAD: RefCell<Option<js_sys::Function>> = const { RefCell::new(None) };
}

// The shape is `Download` in `pkg/src/download.ts`.
#[wasm_bindgen]
extern "C" {
    type Download;
    #[wasm_bindgen(method, structural, getter)]
    fn bytes(this: &Download) -> js_sys::Promise;
    #[wasm_bindgen(method, structural)]
    fn stop(this: &Download);
}

/// Stopped when nobody wants it any more; one that has ended does not mind.
struct Wanted(Download);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// From now on `make` is called with the URL of each connection, and gives what has the members of a WebSocket that are used here.
pub fn make_sockets_by(make: js_sys::Function) {
    MAKE.set(Some(make));
}

/// From now on `download` is called with a URL as above, a path below it, a token or nothing, an offset and a length, and gives what has the
/// members of a `Download`.
pub fn download_by(download: js_sys::Function) {
    DOWNLOAD.set(Some(download));
}

pub(super) fn can_download() -> bool {
    DOWNLOAD.with_borrow(Option::is_some)
}

pub(super) fn download(
    url: &str,
    path: &str,
    token: Option<&str>,
    offset: u64,
    len: u64,
) -> impl Future<Output = Result<Vec<u8>>> + use<> {
    let token = token.map_or(JsValue::UNDEFINED, JsValue::from);
    let asked: [JsValue; 5] = [url.into(), path.into(), token, (offset as f64).into(), (len as f64).into()];
    let begun = DOWNLOAD.with_borrow(Clone::clone).map(|download| {
        let begun = download.apply(&JsValue::NULL, &asked.into_iter().collect::<js_sys::Array>());
        begun.map(|begun| Wanted(begun.unchecked_into()))
    });
    async move {
        let failed = |error: JsValue| unavailable(text(&error));
        let wanted = begun.ok_or_else(|| unavailable("nothing makes requests"))?.map_err(failed)?;
        let bytes = JsFuture::from(wanted.0.bytes()).await.map_err(failed)?;
        Ok(js_sys::Uint8Array::new(&bytes).to_vec())
    }
}

fn make(url: &str) -> Result<WebSocket, JsValue> {
    match MAKE.with_borrow(Clone::clone) {
        Some(make) => make.call1(&JsValue::NULL, &url.into()).map(JsCast::unchecked_into),
        None => WebSocket::new(url),
    }
}

/// The client's end of a WebSocket.
pub struct Socket {
    socket: WebSocket,
    received: Mutex<mpsc::UnboundedReceiver<Received>>,
    _handlers: Handlers,
}

/// What the host calls; taken away again before it is dropped.
struct Handlers {
    socket: WebSocket,
    _open: Closure<dyn FnMut()>,
    _message: Closure<dyn FnMut(MessageEvent)>,
    _close: Closure<dyn FnMut(CloseEvent)>,
    _error: Closure<dyn FnMut()>,
}

impl Drop for Handlers {
    fn drop(&mut self) {
        self.socket.set_onopen(None);
        self.socket.set_onmessage(None);
        self.socket.set_onclose(None);
        self.socket.set_onerror(None);
        // Closing twice is no error.
        let _ = self.socket.close();
    }
}

impl Socket {
    /// Connects.
    ///
    /// # Errors
    /// `Unavailable` when nobody answers, or the answer is none of a hub (hosts do not tell which), `InvalidArgument` for a URL that cannot
    /// be.
    pub async fn connect(url: &str) -> Result<Self> {
        let socket = make(url).map_err(|error| Error::invalid(format!("{url}: {}", text(&error))))?;
        socket.set_binary_type(BinaryType::Arraybuffer);
        let (sender, received) = mpsc::unbounded();
        let (opened, opening) = oneshot::channel();
        let opened = std::rc::Rc::new(RefCell::new(Some(opened)));

        let tell_opened = opened.clone();
        let open = Closure::<dyn FnMut()>::new(move || {
            if let Some(opened) = tell_opened.borrow_mut().take() {
                // Who no longer waits does not need the answer; the same below.
                let _ = opened.send(Ok(()));
            }
        });
        let to_receiver = sender.clone();
        let message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            let _ = to_receiver.unbounded_send(take_message(&event.data()));
        });
        // Node 20 tells of a connection that cannot be made by `error` alone; browsers tell `close` after it.
        let (to_receiver, tell_failed) = (sender.clone(), opened.clone());
        let error = Closure::<dyn FnMut()>::new(move || {
            let failed = unavailable(NO_ANSWER);
            let _ = match tell_failed.borrow_mut().take() {
                Some(opened) => opened.send(Err(failed)).is_ok(),
                None => to_receiver.unbounded_send(Err(unavailable("the connection broke"))).is_ok(),
            };
        });
        let close = Closure::<dyn FnMut(CloseEvent)>::new(move |event: CloseEvent| {
            if let Some(opened) = opened.borrow_mut().take() {
                let _ = opened.send(Err(unavailable(NO_ANSWER)));
            }
            // 1000 and 1001: the peer closed. Anything else, most often 1006, broke.
            let _ = sender.unbounded_send(if matches!(event.code(), 1000 | 1001) {
                Ok(None)
            } else {
                Err(unavailable(format!("the connection broke (WebSocket code {}) {}", event.code(), event.reason())))
            });
        });
        socket.set_onopen(Some(open.as_ref().unchecked_ref()));
        socket.set_onmessage(Some(message.as_ref().unchecked_ref()));
        socket.set_onclose(Some(close.as_ref().unchecked_ref()));
        socket.set_onerror(Some(error.as_ref().unchecked_ref()));
        let handlers =
            Handlers { socket: socket.clone(), _open: open, _message: message, _close: close, _error: error };
        opening.await.map_err(|_| unavailable("the host dropped the socket"))?.map_err(|error| error.context(url))?;
        Ok(Self { socket, received: Mutex::new(received), _handlers: handlers })
    }
}

fn take_message(data: &JsValue) -> Received {
    let Some(buffer) = data.dyn_ref::<js_sys::ArrayBuffer>() else {
        return Err(Error::corrupt("a text message; sync messages are binary"));
    };
    if buffer.byte_length() as usize > MESSAGE_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a message of {} bytes; at most {MESSAGE_BYTES_MAX} are taken in",
            buffer.byte_length()
        )));
    }
    Ok(Some(js_sys::Uint8Array::new(buffer).to_vec()))
}

fn text(error: &JsValue) -> String {
    let message = js_sys::Reflect::get(error, &"message".into()).ok().and_then(|message| message.as_string());
    message.unwrap_or_else(|| "refused by the host".to_owned())
}

impl Connection for Socket {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        Box::pin(async move {
            while self.socket.ready_state() == WebSocket::OPEN && self.socket.buffered_amount() > BUFFERED_BYTES_MAX {
                sleep_ms(BUFFERED_LOOK_MS).await;
            }
            if self.socket.ready_state() != WebSocket::OPEN {
                return Err(unavailable("the connection is closed"));
            }
            self.socket.send_with_u8_array(&message).map_err(|error| unavailable(text(&error)))
        })
    }

    fn receive(&self) -> Task<'_, Received> {
        Box::pin(async move {
            // The host has dropped its end only after telling that the connection closed.
            self.received.lock().await.recv().await.unwrap_or(Ok(None))
        })
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async move {
            // Closing twice is no error.
            let _ = self.socket.close();
        })
    }
}
