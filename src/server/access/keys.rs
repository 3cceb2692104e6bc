use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;

use super::jwt::Key;
use crate::base::{Error, Result};

/// Shorter secrets can be guessed from a token (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// The file of the keys: a set of JSON Web Keys (RFC 7517, RFC 8037), and what tokens must say besides.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    keys: Vec<Jwk>,
    leeway_seconds: Option<u32>,
    issuer: Option<String>,
    audience: Option<String>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    /// The secret.
    k: Option<String>,
    /// The public key.
    x: Option<String>,
}

/// What tokens are checked by.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    pub(super) keys: Vec<(Option<String>, Key)>,
    /// By how much clocks may differ.
    pub(super) leeway_ms: Option<u64>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
}

impl Keys {
    /// Those of a file.
    ///
    /// # Errors
    /// `InvalidArgument` for what is none, with the number of the key.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let file: File = serde_json::from_slice(text).map_err(|error| Error::invalid(error.to_string()))?;
        let one = |(at, jwk): (usize, &Jwk)| match to_key(jwk) {
            Ok(key) => Ok((jwk.kid.clone(), key)),
            Err(reason) => Err(Error::invalid(format!("key {at}: {reason}"))),
        };
        Ok(Self {
            keys: file.keys.iter().enumerate().map(one).collect::<Result<_>>()?,
            leeway_ms: file.leeway_seconds.map(|seconds| u64::from(seconds) * 1_000),
            issuer: file.issuer,
            audience: file.audience,
        })
    }

    /// Adds a secret for HS256, without an id.
    ///
    /// # Errors
    /// `InvalidArgument` for one that is too short.
    pub(super) fn add_secret(&mut self, secret: &str) -> Result<()> {
        self.keys.push((None, secret_of(secret.as_bytes().to_vec()).map_err(Error::invalid)?));
        Ok(())
    }
}

fn secret_of(secret: Vec<u8>) -> Result<Key, String> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!("a secret of {} bytes; at least {SECRET_BYTES_MIN} expected", secret.len()));
    }
    Ok(Key::Hs256(secret))
}

fn to_key(jwk: &Jwk) -> Result<Key, String> {
    let bytes = |name: &str, value: &Option<String>| {
        let value = value.as_deref().ok_or_else(|| format!("{name:?} is missing"))?;
        URL_SAFE_NO_PAD.decode(value).map_err(|error| format!("{name:?}: {error}"))
    };
    match (jwk.kty.as_str(), jwk.crv.as_deref(), jwk.alg.as_deref()) {
        ("oct", None, None | Some("HS256")) => secret_of(bytes("k", &jwk.k)?),
        ("OKP", Some("Ed25519"), None | Some("EdDSA" | "Ed25519")) => {
            let public = bytes("x", &jwk.x)?;
            let public: &[u8; 32] =
                public.as_slice().try_into().map_err(|_| format!("\"x\" has {} bytes; 32 expected", public.len()))?;
            let key = VerifyingKey::from_bytes(public).map_err(|_| "\"x\" is no point of the curve".to_owned())?;
            if key.is_weak() {
                return Err("\"x\" is a weak key".to_owned());
            }
            Ok(Key::EdDsa(Box::new(key)))
        }
        (kty, crv, alg) => Err(format!(
            "kty {kty:?}, crv {crv:?}, alg {alg:?}; expected \"oct\" with \"HS256\", or \"OKP\" with \"Ed25519\" and \"EdDSA\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_the_standards_write_them() {
        // RFC 8037, appendix A.2, and RFC 7515, appendix A.1.
        let keys = br#"{"keys": [
            {"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
            {"kty":"oct","alg":"HS256","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}
        ], "leewaySeconds": 5, "audience": "eddy"}"#;
        let keys = Keys::parse(keys).unwrap();
        assert!(matches!(&keys.keys[..], [(Some(_), Key::EdDsa(_)), (None, Key::Hs256(secret))] if secret.len() == 64));
        assert_eq!((keys.leeway_ms, keys.audience.as_deref()), (Some(5_000), Some("eddy")));
    }

    #[test]
    fn keys_that_are_none_are_refused_with_their_number() {
        for (key, reason) in [
            (r#"{"kty":"oct","k":"c2hvcnQ"}"#, "5 bytes"),
            (r#"{"kty":"oct"}"#, "\"k\" is missing"),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#, "32 expected"),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#, "weak"),
            (r#"{"kty":"RSA","n":"x"}"#, "expected \"oct\""),
            (r#"{"kty":"oct","alg":"none","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}"#, "expected \"oct\""),
        ] {
            let error = Keys::parse(format!("{{\"keys\": [{key}]}}").as_bytes()).unwrap_err();
            assert!(error.message().starts_with("key 0: ") && error.message().contains(reason), "{error}");
        }
        assert!(Keys::parse(b"{").is_err() && Keys::parse(br#"{"keys": [], "leeway": 3}"#).is_err());
    }
}
