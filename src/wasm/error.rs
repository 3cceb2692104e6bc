use js_sys::Reflect;
use wasm_bindgen::JsValue;

use crate::base::{Error, ErrorKind};

/// The error as JavaScript sees it: an `Error` with `kind` and, where a character of the request is meant, `position`.
pub(super) fn to_js(error: &Error) -> JsValue {
    let thrown = js_sys::Error::new(error.message());
    let set = |name: &str, value: JsValue| {
        js_sys::Reflect::set(&thrown, &JsValue::from_str(name), &value).expect("a fresh object takes properties");
    };
    set("kind", JsValue::from_str(error.kind().as_str()));
    if let Some(position) = error.position() {
        set("position", JsValue::from_f64(position as f64));
    }
    thrown.into()
}

/// The error that JavaScript threw.
pub(super) fn from_js(thrown: &JsValue) -> Error {
    let text = |name: &str| Reflect::get(thrown, &name.into()).ok().and_then(|text| text.as_string());
    let kind = text("kind").map_or(ErrorKind::Internal, |kind| ErrorKind::from_name(&kind));
    Error::new(kind, text("message").unwrap_or_default())
}

/// A result whose error can be thrown.
pub(super) type Thrown<T> = Result<T, JsValue>;

/// Turns the errors of this crate into what JavaScript throws.
pub(super) trait OrThrow<T> {
    /// The value, or the error as JavaScript sees it.
    fn or_throw(self) -> Thrown<T>;
}

impl<T> OrThrow<T> for crate::base::Result<T> {
    fn or_throw(self) -> Thrown<T> {
        self.map_err(|error| to_js(&error))
    }
}
