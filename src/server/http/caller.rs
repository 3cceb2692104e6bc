use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;

use super::App;
use super::reply::Failure;
use crate::base::{Error, ErrorKind, Result};
use crate::db::{Action, Admitted, Collection, Db, Gate};
use crate::platform::now_ms;

/// Who asks: what is there, as far as that one may have it. Whatever is done for a request is done by what this hands out.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) app: Arc<App>,
    admitted: Admitted,
    token: Option<String>,
}

impl Caller {
    /// A collection, to see the rows of it that may be seen.
    pub(super) fn read(&self, name: &str) -> Result<Collection> {
        self.some(name, Action::Read)
    }

    /// A collection, to write the rows of it that may be written.
    pub(super) fn write(&self, name: &str) -> Result<Collection> {
        self.some(name, Action::Write)
    }

    /// The store, to do anything with a collection that is there or is to be.
    pub(super) fn admin(&self, name: &str) -> Result<&Db> {
        self.admitted.access.check(&self.real_name(name), Action::Admin)?;
        Ok(&self.app.db)
    }

    /// The store, to do anything.
    pub(super) fn all(&self) -> Result<&Db> {
        self.admitted.access.check_all()?;
        Ok(&self.app.db)
    }

    /// The collections of which something may be seen.
    pub(super) fn collections(&self) -> Vec<Collection> {
        let mut collections = self.app.db.collections();
        collections.retain(|collection| self.admitted.access.allows(collection.name(), Action::Read));
        collections
    }

    fn some(&self, name: &str, action: Action) -> Result<Collection> {
        self.admitted.access.check(&self.real_name(name), action)?;
        self.app.db.collection(name)?.limited(&self.admitted.access)
    }

    /// Rights are those of the collection, by whichever name it is called.
    fn real_name(&self, name: &str) -> String {
        self.app.db.collection(name).map_or_else(|_| name.to_owned(), |collection| collection.name().to_owned())
    }

    /// Ends when the caller may not do any more what it might when it asked.
    pub(super) async fn ends(&self) -> Error {
        let Some(gate) = &self.app.gate else { return std::future::pending().await };
        let over = |message: &str| Error::new(ErrorKind::Unauthorized, message);
        let mut version = 0;
        loop {
            match gate.admit(self.token.as_deref(), now_ms()) {
                Ok(admitted) if admitted.access == self.admitted.access => {}
                Ok(_) => return over("what the token allows has changed; ask again"),
                Err(error) => return error,
            }
            let left_ms = self.admitted.expires_ms.map(|expires_ms| expires_ms.saturating_sub(now_ms()));
            let expires = async {
                match left_ms {
                    Some(left_ms) => crate::platform::sleep_ms(left_ms).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = gate.changed(version) => version = changed,
                () = expires => {}
            }
        }
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let let_in = parts.extensions.get::<LetIn>().cloned();
        let LetIn { admitted, token } = match (&app.gate, let_in) {
            (_, Some(let_in)) => let_in,
            (None, None) => LetIn::default(),
            (Some(_), None) => return Err(Error::internal("a request that nobody has let in").into()),
        };
        Ok(Self { app: app.clone(), admitted, token })
    }
}

/// What was found out about who asks.
#[derive(Clone, Default)]
struct LetIn {
    admitted: Admitted,
    token: Option<String>,
}

/// Lets a request in, or not: where there is a gate, all of `/api` is behind it.
pub(super) async fn let_in(
    State(gate): State<Option<Arc<dyn Gate>>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    if let Some(gate) = gate.filter(|_| request.uri().path().starts_with("/api/")) {
        let header = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or(""));
        let token = header.and_then(|header| header.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let admitted = gate.admit(token, now_ms())?;
        let token = token.map(str::to_owned);
        request.extensions_mut().insert(LetIn { admitted, token });
    }
    Ok(next.run(request).await)
}
