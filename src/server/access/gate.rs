use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::jwt::{self, unauthorized};
use super::keys::Keys;
use crate::base::{Error, ErrorKind, Result};
use crate::db::{Access, Admitted, Gate};
use crate::platform::Task;

/// By how much clocks may differ where nothing is said.
const LEEWAY_MS: u64 = 30_000;
/// The files are looked at once in this.
const LOOK_MS: u64 = 1_000;

/// What is not to be taken any more: one of these, a line of the file of revocations.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Revocation {
    /// The token with this id (`jti`).
    Token(String),
    /// All tokens that were signed by the key with this id (`kid`).
    Key(String),
    /// All tokens of this subject (`sub`).
    Subject(String),
}

/// Lets in whoever has a token that one of its keys has signed, to do what the token grants.
pub struct TokenGate {
    keys_file: Option<PathBuf>,
    secret: Option<String>,
    revoked_file: PathBuf,
    known: RwLock<Known>,
    /// Whoever adds to the file of revocations.
    adding: Mutex<()>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    keys: Keys,
    revoked: BTreeSet<Revocation>,
    /// What the files were when they were read.
    seen: Option<[Option<Vec<u8>>; 2]>,
}

impl TokenGate {
    /// A gate by the keys of a file, a secret, or both; with the file that has, and gets, what is revoked.
    ///
    /// # Errors
    /// `InvalidArgument` for no key, and for files that are not understood; `NotFound` and `Io` as reading the keys says.
    pub fn open(keys_file: Option<PathBuf>, secret: Option<String>, revoked_file: PathBuf) -> Result<Arc<Self>> {
        let gate = Self {
            keys_file,
            secret,
            revoked_file,
            known: RwLock::default(),
            adding: Mutex::new(()),
            version: watch::Sender::new(1),
        };
        gate.look()?;
        if gate.known.read().expect("no panic while held").keys.keys.is_empty() {
            return Err(Error::invalid("no key that tokens could be checked by"));
        }
        Ok(Arc::new(gate))
    }

    /// Looks once in a while whether the files have changed, as long as the gate is there.
    pub fn follow(self: &Arc<Self>) {
        let gate = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
                let Some(gate) = gate.upgrade() else { return };
                // Keys that are not understood change nothing: those that were, stay.
                if let Ok(Err(error)) = tokio::task::spawn_blocking(move || gate.look()).await {
                    tracing::error!(%error, "the files of keys and revocations cannot be read; what they said before counts");
                }
            }
        });
    }

    /// Reads the files again, if they have changed.
    ///
    /// # Errors
    /// As of [`TokenGate::open`]; then nothing has changed.
    pub fn look(&self) -> Result<()> {
        let keys_bytes = self.keys_file.as_deref().map(read).transpose()?.flatten();
        if let (Some(file), None) = (&self.keys_file, &keys_bytes) {
            return Err(Error::not_found(format!("the keys' file {} is not there", file.display())));
        }
        let seen = [keys_bytes, read(&self.revoked_file)?];
        if self.known.read().expect("no panic while held").seen.as_ref() == Some(&seen) {
            return Ok(());
        }
        let mut keys = match (&self.keys_file, &seen[0]) {
            (Some(file), Some(bytes)) => Keys::parse(bytes).map_err(|error| error.context(file.display()))?,
            _ => Keys::default(),
        };
        if let Some(secret) = &self.secret {
            keys.add_secret(secret)?;
        }
        let mut revoked = BTreeSet::new();
        for (at, line) in seen[1].as_deref().unwrap_or_default().split(|byte| *byte == b'\n').enumerate() {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            revoked.insert(serde_json::from_slice(line).map_err(|error| {
                Error::invalid(format!("{}, line {}: {error}", self.revoked_file.display(), at + 1))
            })?);
        }
        *self.known.write().expect("no panic while held") = Known { keys, revoked, seen: Some(seen) };
        self.version.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Revokes, durably and from now on.
    ///
    /// # Errors
    /// What writing the file says; then nothing is revoked.
    #[expect(clippy::disallowed_types, reason = "the server writes the file that it is given")]
    pub fn revoke(&self, revocation: &Revocation) -> Result<()> {
        use std::io::Write;
        let io = |error: std::io::Error| Error::new(ErrorKind::Io, format!("{}: {error}", self.revoked_file.display()));
        let line =
            serde_json::to_string(revocation).map_err(|error| Error::internal(format!("a revocation: {error}")))?;
        let _one = self.adding.lock().expect("no panic while held");
        // What a crash has cut off is ended first, so that it spoils no other line.
        let is_open = read(&self.revoked_file)?.is_some_and(|there| there.last().is_some_and(|last| *last != b'\n'));
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.revoked_file).map_err(io)?;
        let line = if is_open { format!("\n{line}\n") } else { format!("{line}\n") };
        file.write_all(line.as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        self.look()
    }
}

#[expect(clippy::disallowed_methods, reason = "the server reads the files that it is given")]
fn read(file: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::new(ErrorKind::Io, format!("{}: {error}", file.display()))),
    }
}

impl Gate for TokenGate {
    fn admit(&self, token: Option<&str>, now_ms: u64) -> Result<Admitted> {
        let token = token.ok_or_else(|| unauthorized("a token is needed"))?;
        let known = self.known.read().expect("no panic while held");
        let keys = known.keys.keys.iter().map(|(id, key)| (id.as_deref(), key));
        let (claims, key) = jwt::verify(token, keys)?;
        let leeway_ms = known.keys.leeway_ms.unwrap_or(LEEWAY_MS);
        // A time in seconds that is no time, or a negative one, is long ago; one past all times is never.
        let at_ms = |seconds: f64| (seconds * 1e3) as u64;
        let expires_ms = claims.exp.map(|exp| at_ms(exp).saturating_add(leeway_ms));
        let told = [
            claims.jti.clone().map(Revocation::Token),
            key.map(|key| Revocation::Key(key.to_owned())),
            claims.sub.clone().map(Revocation::Subject),
        ];
        if told.into_iter().flatten().any(|told| known.revoked.contains(&told)) {
            // Known, and may do nothing any more, whatever the time: another token of the kind would not help.
            return Ok(Admitted { access: Access::of(Vec::new())?, expires_ms: None });
        }
        if expires_ms.is_some_and(|expires_ms| now_ms >= expires_ms) {
            return Err(unauthorized("the token has expired; come with a new one"));
        }
        if claims.nbf.is_some_and(|nbf| now_ms.saturating_add(leeway_ms) < at_ms(nbf)) {
            return Err(unauthorized("the token is not valid yet"));
        }
        if let Some(issuer) = &known.keys.issuer
            && claims.iss.as_ref() != Some(issuer)
        {
            return Err(unauthorized(format!("the token is from {:?}; {issuer:?} expected", claims.iss)));
        }
        if let Some(audience) = known.keys.audience.as_ref().filter(|audience| !claims.aud.names(audience)) {
            return Err(unauthorized(format!("the token is not for {audience:?}")));
        }
        let access =
            Access::of(claims.eddy).map_err(|error| unauthorized(format!("the token: {}", error.message())))?;
        Ok(Admitted { access, expires_ms })
    }

    fn changed(&self, version: u64) -> Task<'static, u64> {
        let mut versions = self.version.subscribe();
        Box::pin(async move {
            let now = versions.wait_for(|now| *now > version).await.map(|now| *now);
            match now {
                Ok(now) => now,
                // The gate is gone: it says nothing else any more.
                Err(_) => std::future::pending().await,
            }
        })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write the files that are read")]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::db::Action;

    const SECRET: &str = "a secret that is quite long enough";

    fn token(claims: &Json) -> String {
        jwt::testing::hs256(SECRET.as_bytes(), &json!({"alg": "HS256"}), claims)
    }

    fn notes(claims: &Json) -> Json {
        let mut all = json!({"eddy": [{"collections": ["notes"], "actions": ["read"]}]});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        all
    }

    #[test]
    fn times_count_with_leeway_and_nothing_else_is_granted() {
        let directory = tempfile::tempdir().unwrap();
        let gate = TokenGate::open(None, Some(SECRET.to_owned()), directory.path().join("revoked")).unwrap();
        let at = |claims: Json, now_s: u64| gate.admit(Some(&token(&notes(&claims))), now_s * 1_000);
        let admitted = at(json!({"exp": 1_000, "nbf": 500}), 700).unwrap();
        assert_eq!(admitted.expires_ms, Some(1_030_000));
        assert!(admitted.access.allows("notes", Action::Read) && !admitted.access.allows("notes", Action::Write));
        assert!(!admitted.access.allows("note", Action::Read) && admitted.access.check_all().is_err());
        assert!(at(json!({"exp": 1_000}), 1_029).is_ok() && at(json!({"nbf": 500}), 470).is_ok());
        for (claims, now_s) in [
            (json!({"exp": 1_000}), 1_030),
            (json!({"nbf": 500}), 469),
            (json!({"exp": -5}), 31),
            (json!({"exp": "soon"}), 1),
        ] {
            assert_eq!(at(claims, now_s).unwrap_err().kind(), ErrorKind::Unauthorized);
        }
        assert_eq!(gate.admit(None, 0).unwrap_err().kind(), ErrorKind::Unauthorized);
        assert_eq!(at(json!({}), u64::MAX / 2_000).unwrap().expires_ms, None);
        let filtered = json!({"eddy": [{"collections": ["*"], "actions": ["admin"], "filter": "id > 3"}]});
        assert_eq!(gate.admit(Some(&token(&filtered)), 0).unwrap_err().kind(), ErrorKind::Unauthorized);
    }

    #[test]
    fn files_are_read_anew_and_what_is_revoked_stays_so() {
        let directory = tempfile::tempdir().unwrap();
        let (keys, revoked) = (directory.path().join("keys.json"), directory.path().join("revoked"));
        let open = || TokenGate::open(Some(keys.clone()), None, revoked.clone());
        assert_eq!(open().err().unwrap().kind(), ErrorKind::NotFound);
        std::fs::write(&keys, r#"{"keys": []}"#).unwrap();
        assert_eq!(open().err().unwrap().kind(), ErrorKind::InvalidArgument);
        let one = |secret: &[u8], id: &str| json!({"kty": "oct", "kid": id, "k": base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, secret)});
        std::fs::write(&keys, json!({"keys": [one(SECRET.as_bytes(), "a")], "issuer": "us"}).to_string()).unwrap();
        let gate = open().unwrap();
        let signed = |claims: Json| {
            jwt::testing::hs256(SECRET.as_bytes(), &json!({"alg": "HS256", "kid": "a"}), &notes(&claims))
        };
        assert!(gate.admit(Some(&signed(json!({}))), 0).unwrap_err().message().contains("\"us\" expected"));
        let mine = signed(json!({"iss": "us", "jti": "1", "sub": "ann"}));
        let other = signed(json!({"iss": "us", "jti": "2", "sub": "bob"}));
        let may =
            |gate: &TokenGate, token: &str| gate.admit(Some(token), 0).unwrap().access.allows("notes", Action::Read);
        assert!(may(&gate, &mine) && may(&gate, &other));
        // What a crash left of a line is no reason to lose the next one; it is told.
        std::fs::write(&revoked, "{\"token\":").unwrap();
        assert!(gate.look().unwrap_err().message().contains("line 1"));
        std::fs::write(&revoked, "{\"token\": \"7\"}").unwrap();
        gate.revoke(&Revocation::Token("1".into())).unwrap();
        assert!(!may(&gate, &mine) && may(&gate, &other));
        assert!(!may(&open().unwrap(), &mine));
        gate.revoke(&Revocation::Subject("bob".into())).unwrap();
        assert!(!may(&gate, &other));
        // By hand, too.
        std::fs::write(&revoked, "").unwrap();
        gate.look().unwrap();
        assert!(may(&gate, &mine));
        gate.revoke(&Revocation::Key("a".into())).unwrap();
        assert!(!may(&gate, &mine));
        // Keys that are not understood change nothing.
        std::fs::write(&keys, "{").unwrap();
        assert!(gate.look().is_err() && gate.admit(Some(&mine), 0).is_ok());
        std::fs::write(&keys, json!({"keys": [one(&[9; 32], "a")], "issuer": "us"}).to_string()).unwrap();
        gate.look().unwrap();
        assert!(gate.admit(Some(&mine), 0).unwrap_err().message().contains("signature"));
    }
}
