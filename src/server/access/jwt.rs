use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

use crate::base::{Error, ErrorKind, Result};
use crate::db::Grant;

/// The longest token that is looked at.
const BYTES_MAX: usize = crate::sync::TOKEN_BYTES_MAX;

/// A key that tokens are signed with: it alone decides by which algorithm, whatever a token says.
#[derive(Debug, Clone)]
pub(super) enum Key {
    Hs256(Vec<u8>),
    EdDsa(Box<VerifyingKey>),
}

impl Key {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    fn has_signed(&self, text: &str, signature: &[u8]) -> bool {
        match self {
            Self::Hs256(secret) => Hmac::<Sha256>::new_from_slice(secret)
                .is_ok_and(|mac| mac.chain_update(text.as_bytes()).verify_slice(signature).is_ok()),
            Self::EdDsa(key) => Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(text.as_bytes(), &signature).is_ok()),
        }
    }
}

/// What a token says (RFC 7519, section 4.1), and what it grants.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) sub: Option<String>,
    pub(super) iss: Option<String>,
    #[serde(default)]
    pub(super) aud: Audience,
    pub(super) exp: Option<f64>,
    pub(super) nbf: Option<f64>,
    pub(super) jti: Option<String>,
    #[serde(default)]
    pub(super) eddy: Vec<Grant>,
}

/// Whom a token is for: one, or several.
#[derive(Debug, Deserialize, Default)]
#[serde(untagged)]
pub(super) enum Audience {
    #[default]
    Nobody,
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub(super) fn names(&self, audience: &str) -> bool {
        match self {
            Self::Nobody => false,
            Self::One(one) => one == audience,
            Self::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

pub(super) fn unauthorized(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unauthorized, message)
}

/// What a token says that one of `keys`, each perhaps with an id, has signed, and which of them. Its times are not looked at.
///
/// # Errors
/// `Unauthorized` for anything else; which part of a signature is wrong is not told.
pub(super) fn verify<'a>(
    token: &str,
    keys: impl Iterator<Item = (Option<&'a str>, &'a Key)>,
) -> Result<(Claims, Option<&'a str>)> {
    if token.len() > BYTES_MAX {
        return Err(unauthorized(format!("a token of {} bytes; at most {BYTES_MAX}", token.len())));
    }
    let mut parts = token.rsplitn(2, '.');
    let (Some(signature), Some(signed)) = (parts.next(), parts.next()) else {
        return Err(unauthorized("the token is no JSON Web Token: three parts with dots between expected"));
    };
    let (Some((header, claims)), signature) = (signed.split_once('.'), decode("signature", signature)?) else {
        return Err(unauthorized("the token is no JSON Web Token: three parts with dots between expected"));
    };
    let header: Header = parse("header", header)?;
    if header.crit.is_some() {
        return Err(unauthorized("the token's header has extensions that must be understood (\"crit\")"));
    }
    let mut tried = 0;
    for (id, key) in keys {
        // A token that names its key is signed by that one, or not at all.
        if header.kid.as_deref().is_some_and(|wanted| id != Some(wanted)) || key.algorithm() != header.alg {
            continue;
        }
        tried += 1;
        if key.has_signed(signed, &signature) {
            return Ok((parse("claims", claims)?, id));
        }
    }
    Err(unauthorized(match tried {
        0 => "no key for this token is known here: wrong key id, or algorithm",
        _ => "the token's signature is wrong",
    }))
}

fn decode(what: &str, part: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).map_err(|error| unauthorized(format!("the token's {what}: {error}")))
}

fn parse<T: DeserializeOwned>(what: &str, part: &str) -> Result<T> {
    serde_json::from_slice(&decode(what, part)?).map_err(|error| unauthorized(format!("the token's {what}: {error}")))
}

#[cfg(test)]
pub(super) mod testing {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    /// A token by HS256.
    pub(in super::super) fn hs256(secret: &[u8], header: &serde_json::Value, claims: &serde_json::Value) -> String {
        let signed = signed(header, claims);
        let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    /// A token by EdDSA.
    pub(in super::super) fn eddsa(key: &SigningKey, header: &serde_json::Value, claims: &serde_json::Value) -> String {
        let signed = signed(header, claims);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes()))
    }

    fn signed(header: &serde_json::Value, claims: &serde_json::Value) -> String {
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(header), part(claims))
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn kind(token: &str, keys: &[(Option<&str>, &Key)]) -> Result<Option<String>, String> {
        match verify(token, keys.iter().copied()) {
            Ok((claims, _)) => Ok(claims.sub),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unauthorized);
                Err(error.message().to_owned())
            }
        }
    }

    #[test]
    fn the_examples_of_the_standards_are_taken() {
        // RFC 7515, appendix A.1: its claims have no `eddy`, so nothing is granted.
        let secret =
            decode("key", "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
                .unwrap();
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let key = Key::Hs256(secret);
        let (claims, _) = verify(token, [(None, &key)].into_iter()).unwrap();
        assert_eq!((claims.iss.as_deref(), claims.exp), (Some("joe"), Some(1_300_819_380.0)));
        assert!(claims.eddy.is_empty());
    }

    #[test]
    fn only_what_a_known_key_has_signed_by_its_own_algorithm_is_taken() {
        let signing = SigningKey::from_bytes(&[7; 32]);
        let public = Key::EdDsa(Box::new(signing.verifying_key()));
        let secret = Key::Hs256(b"a secret of some thirty-two bytes".to_vec());
        let claims = json!({"sub": "ann"});
        let keys = [(Some("ed"), &public), (None, &secret)];
        let hs = |header| testing::hs256(b"a secret of some thirty-two bytes", &header, &claims);
        assert_eq!(kind(&hs(json!({"alg": "HS256"})), &keys), Ok(Some("ann".into())));
        assert_eq!(
            kind(&testing::eddsa(&signing, &json!({"alg": "EdDSA", "kid": "ed"}), &claims), &keys),
            Ok(Some("ann".into()))
        );
        assert!(kind(&hs(json!({"alg": "HS256", "kid": "ed"})), &keys).unwrap_err().contains("no key"));
        assert!(kind(&hs(json!({"alg": "none"})), &keys).unwrap_err().contains("no key"));
        assert!(kind(&hs(json!({"alg": "HS256", "crit": ["b64"]})), &keys).unwrap_err().contains("crit"));
        // The well-known trick: a public key, which everybody has, as the secret of the other algorithm.
        let confused =
            testing::hs256(signing.verifying_key().as_bytes(), &json!({"alg": "HS256", "kid": "ed"}), &claims);
        assert!(kind(&confused, &keys).unwrap_err().contains("no key"));
        let good = hs(json!({"alg": "HS256"}));
        let (rest, signature) = good.rsplit_once('.').unwrap();
        for wrong in [
            format!("{rest}."),
            format!("{rest}.AAAA"),
            rest.to_owned(),
            String::new(),
            ".".into(),
            "..".into(),
            format!("{good}.x"),
            format!("{good}="),
            format!("{rest}x.{signature}"),
        ] {
            assert!(kind(&wrong, &keys).is_err(), "{wrong}");
        }
        assert!(kind(&"a".repeat(BYTES_MAX + 1), &keys).unwrap_err().contains("bytes"));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_and_no_change_of_a_token_is_taken(text in ".{0,200}", at: prop::sample::Index, byte in "[A-Za-z0-9_.-]") {
            let key = Key::Hs256(vec![3; 32]);
            prop_assert!(verify(&text, [(None, &key)].into_iter()).is_err());
            let good = testing::hs256(&[3; 32], &json!({"alg": "HS256"}), &json!({"sub": "ann"}));
            let mut changed = good.clone();
            let at = at.index(good.len());
            changed.replace_range(at..=at, &byte);
            prop_assert_eq!(verify(&changed, [(None, &key)].into_iter()).is_ok(), changed == good);
        }
    }
}
