//! Genuine tokens are accepted; all others are refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Claims, Expected, TokenError, Unverified};
use crate::jwt::key_set::KeySet;
use tidegate_core::clock::Timestamp;

const NOW: Timestamp = Timestamp(1_790_000_000_000);
const ISSUER: &str = "https://id.example.com";
const RSA: &[u8] = include_bytes!("../../../../../tests/behaviour/access/keys/rsa.der");

/// A key of an elliptic curve and its public half.
struct Signer {
    key: EncodingKey,
    jwk: Value,
}

fn signer(kid: &str) -> Signer {
    let pair = rcgen::KeyPair::generate().expect("a key");
    let point = pair.public_key_raw();
    let [x, y] = [&point[1..33], &point[33..65]].map(|half| URL_SAFE_NO_PAD.encode(half));
    Signer {
        key: EncodingKey::from_ec_der(&pair.serialize_der()),
        jwk: json!({ "kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256", "x": x, "y": y }),
    }
}

/// Returns the public half of the RSA key: the first two integers of PKCS #1 after the version.
fn rsa_jwk(kid: &str, alg: Option<&str>) -> Value {
    // SEQUENCE (4), version (3), INTEGER (4) with 257 bytes, INTEGER (2) with 3 bytes.
    let modulus = URL_SAFE_NO_PAD.encode(&RSA[12..268]);
    let mut jwk = json!({ "kty": "RSA", "kid": kid, "n": modulus, "e": "AQAB" });
    if let Some(alg) = alg {
        jwk["alg"] = alg.into();
    }
    jwk
}

fn keys(keys: &[&Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).expect("a set")
}

fn encode(value: &str) -> String {
    URL_SAFE_NO_PAD.encode(value)
}

fn sign(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).expect("a signature");
    format!("{message}.{signature}")
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "chat", "sub": "ann", "exp": 1_790_000_600, "nbf": 1_790_000_000, "iat": 1_790_000_000 })
}

fn verify(token: &str, keys: &KeySet) -> Result<Claims, TokenError> {
    let unverified = Unverified::read(token)?;
    let key = keys.find(unverified.kid.as_deref(), unverified.algorithm).ok_or(TokenError::UnknownKey)?;
    unverified.verify(key, &Expected { issuer: ISSUER, audience: &["chat".to_owned()], now: NOW })
}

fn said(result: Result<Claims, TokenError>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

const HEADER: &str = r#"{"alg":"ES256","kid":"one","typ":"JWT"}"#;

#[test]
fn claims_are_checked_one_by_one() {
    let one = signer("one");
    let set = keys(&[&one.jwk]);
    let check = |claims: &str, expected: &str| {
        assert_eq!(said(verify(&sign(HEADER, claims, &one.key, Algorithm::ES256), &set)), expected, "{claims}");
    };
    let with = |name: &str, value: Value, expected: &str| {
        let mut claims = claims();
        claims[name] = value;
        check(&claims.to_string(), expected);
    };
    let without = |name: &str, expected: &str| {
        let mut claims = claims();
        claims.as_object_mut().expect("an object").remove(name);
        check(&claims.to_string(), expected);
    };
    check(&claims().to_string(), "accepted");
    with("aud", json!(["other", "chat"]), "accepted");
    with("aud", json!(["other"]), "the token is for another audience");
    with("aud", json!([]), "the token is for another audience");
    with("aud", json!("other"), "the token is for another audience");
    with("aud", json!("CHAT"), "the token is for another audience");
    with("aud", json!(["chat", 1]), "the claim `aud` is missing or malformed");
    with("aud", json!({ "chat": true }), "the claim `aud` is missing or malformed");
    with("aud", json!(null), "the claim `aud` is missing or malformed");
    without("aud", "the token is for another audience");
    with("iss", json!("https://id.example.com/"), "the token is from another issuer");
    with("iss", json!("https://evil.example.com"), "the token is from another issuer");
    with("iss", json!([ISSUER]), "the token is from another issuer");
    without("iss", "the token is from another issuer");
    with("exp", json!(1_790_000_000), "the token has expired");
    with("exp", json!(1_789_999_999), "the token has expired");
    with("exp", json!(1_790_000_000.5), "accepted");
    with("exp", json!(0), "the token has expired");
    with("exp", json!("1790000600"), "the claim `exp` is missing or malformed");
    with("exp", json!(-1), "the claim `exp` is missing or malformed");
    with("exp", json!(1e300), "the claim `exp` is missing or malformed");
    with("exp", json!(u64::MAX), "the claim `exp` is missing or malformed");
    with("exp", json!(253_402_300_800_u64), "the claim `exp` is missing or malformed");
    with("exp", json!(253_402_300_799_u64), "accepted");
    with("exp", json!(null), "the claim `exp` is missing or malformed");
    without("exp", "the claim `exp` is missing or malformed");
    with("nbf", json!(1_790_000_030), "accepted");
    with("nbf", json!(1_790_000_031), "the token is not valid yet");
    with("nbf", json!("soon"), "the claim `nbf` is missing or malformed");
    with("iat", json!(1_790_000_031), "the token is not valid yet");
    with("iat", json!(1), "accepted");
    with("iat", json!([]), "the claim `iat` is missing or malformed");
    without("nbf", "accepted");
    without("iat", "accepted");

    let mut client = claims();
    client["client_id"] = "chat".into();
    check(&client.to_string(), "accepted");
    client.as_object_mut().expect("an object").remove("aud");
    check(&client.to_string(), "accepted");

    let malformed = "the token is malformed: a part of it is not one JSON object";
    let text = claims().to_string();
    check(&text.replacen('{', r#"{"aud":"other","#, 1), malformed);
    check(&text.replacen('{', r#"{"exp":9999999999,"#, 1), malformed);
    check(&format!("[{text}]"), malformed);
    check(&format!("{text}{text}"), malformed);
    check("null", malformed);
    check("", malformed);
    check("{}", "the token is from another issuer");
}

#[test]
fn headers_are_checked_before_anything_else() {
    let one = signer("one");
    let set = keys(&[&one.jwk]);
    let check = |header: &str, expected: &str| {
        let token = sign(header, &claims().to_string(), &one.key, Algorithm::ES256);
        assert_eq!(said(verify(&token, &set)), expected, "{header}");
    };
    check(HEADER, "accepted");
    check(
        r#"{"alg":"ES256","kid":"one","jku":"https://evil.example.com","x5u":"https://evil.example.com"}"#,
        "accepted",
    );
    check(r#"{"alg":"ES256"}"#, "accepted");
    check(r#"{"alg":"none","kid":"one"}"#, "the token's algorithm is not allowed");
    check(r#"{"alg":"None","kid":"one"}"#, "the token's algorithm is not allowed");
    check(r#"{"alg":"HS256","kid":"one"}"#, "the token's algorithm is not allowed");
    check(r#"{"alg":"HS512","kid":"one"}"#, "the token's algorithm is not allowed");
    check(r#"{"alg":"es256","kid":"one"}"#, "the token's algorithm is not allowed");
    check(r#"{"alg":"RS256","kid":"one"}"#, "the token's algorithm is not the one of its key");
    check(r#"{"alg":"ES384","kid":"one"}"#, "the token's algorithm is not the one of its key");
    check(r#"{"alg":"ES256","kid":"two"}"#, "the token's key is not among the issuer's keys");
    check(r#"{"alg":"ES256","kid":"ONE"}"#, "the token's key is not among the issuer's keys");
    check(r#"{"alg":"ES256","kid":""}"#, "the token's key is not among the issuer's keys");
    let not_signed = "the token is malformed: its header is not that of a signed token";
    check(r#"{"kid":"one"}"#, not_signed);
    check(r#"{"alg":["ES256"],"kid":"one"}"#, not_signed);
    check(r#"{"alg":null,"kid":"one"}"#, not_signed);
    check(r#"{"alg":"ES256","kid":1}"#, not_signed);
    let unsupported = "the token is malformed: its header requires an unsupported extension";
    check(r#"{"alg":"ES256","kid":"one","crit":["exp"]}"#, unsupported);
    check(r#"{"alg":"ES256","kid":"one","b64":false}"#, unsupported);
    check(r#"{"alg":"ES256","kid":"one","enc":"A256GCM"}"#, unsupported);
    check(r#"{"alg":"ES256","kid":"one","zip":"DEF"}"#, unsupported);
    check(r#"{"alg":"ES256","kid":"one","cty":"JWT"}"#, "the token is malformed: it contains another token");
    let twice = "the token is malformed: a part of it is not one JSON object";
    check(r#"{"alg":"ES256","alg":"none","kid":"one"}"#, twice);
    check(r#"{"alg":"ES256","kid":"one","kid":"two"}"#, twice);
    check("{", twice);

    // A key in the header is the sender's own and proves nothing.
    let evil = signer("one");
    let header = json!({ "alg": "ES256", "kid": "one", "jwk": evil.jwk }).to_string();
    let token = sign(&header, &claims().to_string(), &evil.key, Algorithm::ES256);
    assert_eq!(said(verify(&token, &set)), "the token's signature is wrong");
}

#[test]
fn a_token_that_was_touched_does_not_count() {
    let one = signer("one");
    let set = keys(&[&one.jwk]);
    let token = sign(HEADER, &claims().to_string(), &one.key, Algorithm::ES256);
    let [header, body, signature] = [0, 1, 2].map(|n| token.split('.').nth(n).expect("a part").to_owned());
    let check = |token: &str, expected: &str| assert_eq!(said(verify(token, &set)), expected, "{token}");
    let wrong = "the token's signature is wrong";
    check(&token, "accepted");
    let other = claims().to_string().replace("ann", "eve");
    check(&format!("{header}.{}.{signature}", encode(&other)), wrong);
    let spaced = HEADER.replace(':', ": ");
    check(&format!("{}.{body}.{signature}", encode(&spaced)), wrong);
    check(&format!("{header}.{body}."), "the token is malformed: it is not signed");
    check(&format!("{header}.{body}"), "the token is malformed: it does not have three parts");
    check(&format!("{token}.x"), "the token is malformed: it does not have three parts");
    check("", "the token is malformed: it does not have three parts");
    check("..", "the token is malformed: it is not signed");
    check(&format!("{header}.{body}.{}", &signature[..40]), wrong);
    check(&format!("{header}.{body}.{}", URL_SAFE_NO_PAD.encode([0; 64])), wrong);
    check(&format!("{header}.{body}.{signature}="), "the token is malformed: its signature is not base64url");
    check(&format!("{header}=.{body}.{signature}"), "the token is malformed: a part of it is not base64url");
    check(&format!(" {token}"), "the token is malformed: a part of it is not base64url");
    check(&"a".repeat(20_000), "the token is malformed: it is too long");
    let nested = sign(HEADER, &encode(&token), &one.key, Algorithm::ES256);
    check(&nested, "the token is malformed: a part of it is not one JSON object");
    // The order of the curve minus s is a second signature of some curves' libraries; what matters is that the text of
    // a signature has one spelling.
    let last = signature.chars().last().expect("a character");
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet.chars().nth(alphabet.find(last).expect("of the alphabet") ^ 1).expect("a character");
    let respelled = format!("{}{next}", &signature[..signature.len() - 1]);
    check(&format!("{header}.{body}.{respelled}"), "the token is malformed: its signature is not base64url");
}

#[test]
fn algorithms_are_pinned_to_keys() {
    let key = EncodingKey::from_rsa_der(RSA);
    let claims = claims().to_string();
    let check = |jwk: &Value, algorithm: Algorithm, expected: &str| {
        let header = format!(r#"{{"alg":"{algorithm:?}","kid":"one"}}"#);
        let token = sign(&header, &claims, &key, algorithm);
        assert_eq!(said(verify(&token, &keys(&[jwk]))), expected, "{jwk} {algorithm:?}");
    };
    let other = "the token's algorithm is not the one of its key";
    check(&rsa_jwk("one", None), Algorithm::RS256, "accepted");
    check(&rsa_jwk("one", Some("RS256")), Algorithm::RS256, "accepted");
    check(&rsa_jwk("one", Some("PS512")), Algorithm::PS512, "accepted");
    check(&rsa_jwk("one", None), Algorithm::RS512, other);
    check(&rsa_jwk("one", Some("RS256")), Algorithm::PS256, other);
    check(&rsa_jwk("one", Some("RS384")), Algorithm::RS256, other);
    // An HMAC whose secret is the public key, which everybody knows.
    for secret in [RSA[12..268].to_vec(), rsa_jwk("one", None)["n"].to_string().into_bytes()] {
        let header = r#"{"alg":"HS256","kid":"one"}"#;
        let token = sign(header, &claims, &EncodingKey::from_secret(&secret), Algorithm::HS256);
        let set = keys(&[&rsa_jwk("one", Some("HS256")), &rsa_jwk("one", None)]);
        assert_eq!(said(verify(&token, &set)), "the token's algorithm is not allowed");
        let header = r#"{"alg":"RS256","kid":"one"}"#;
        let token = sign(header, &claims, &EncodingKey::from_secret(&secret), Algorithm::HS256);
        assert_eq!(said(verify(&token, &set)), "the token's signature is wrong");
    }
}

#[test]
fn keys_that_are_of_no_use_are_left_out() {
    let check = |changes: Value, expected: bool| {
        let mut jwk = signer("one").jwk;
        for (name, value) in changes.as_object().expect("changes") {
            jwk[name] = value.clone();
        }
        assert_eq!(keys(&[&jwk]).is_empty(), !expected, "{changes}");
    };
    check(json!({}), true);
    check(json!({ "alg": null }), true);
    check(json!({ "use": null, "key_ops": ["verify"] }), true);
    check(json!({ "extra": [1] }), true);
    check(json!({ "use": "enc" }), false);
    check(json!({ "key_ops": ["sign"] }), false);
    check(json!({ "alg": "RS256" }), false);
    check(json!({ "alg": "none" }), false);
    check(json!({ "crv": "P-521" }), false);
    check(json!({ "kty": "oct", "k": "c2VjcmV0" }), false);
    check(json!({ "x": null }), false);
    check(json!({ "x": 7 }), false);
    let weak = json!({ "kty": "RSA", "kid": "one", "n": URL_SAFE_NO_PAD.encode([255; 128]), "e": "AQAB" });
    assert!(keys(&[&weak]).is_empty(), "1024 bits");
    let (one, other) = (signer("one").jwk, signer("one").jwk);
    assert!(keys(&[&one, &other]).is_empty(), "two keys of one id");
    assert!(KeySet::parse(b"{}").is_none());
    assert!(KeySet::parse(b"[]").is_none());
    assert!(KeySet::parse(br#"{"keys":{}}"#).is_none());
    assert!(KeySet::parse(br#"{"keys":[1,null,"x"]}"#).is_some_and(|set| set.is_empty()));
}

#[test]
fn claims_become_text_as_aws_writes_them() {
    let one = signer("one");
    let mut claims = claims();
    claims["groups"] = json!(["a", "b c", 1]);
    claims["nested"] = json!({ "x": [1] });
    claims["admin"] = json!(true);
    claims["scope"] = json!("read  write");
    let token = sign(HEADER, &claims.to_string(), &one.key, Algorithm::ES256);
    let claims = verify(&token, &keys(&[&one.jwk])).expect("genuine");
    assert_eq!(claims.scopes(), ["read", "write"]);
    assert_eq!(claims.expires_at, Timestamp(1_790_000_600_000));
    let text = claims.as_text();
    let of = |name: &str| text.iter().find(|(key, _)| **key == *name).map(|(_, value)| &**value);
    assert_eq!(of("exp"), Some("1790000600"));
    assert_eq!(of("groups"), Some("[a b c 1]"));
    assert_eq!(of("nested"), Some(r#"{"x":[1]}"#));
    assert_eq!(of("admin"), Some("true"));
}

proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(token in ".{0,60}", parts in prop::collection::vec(".{0,30}", 3)) {
        let set = keys(&[&signer("one").jwk]);
        prop_assert!(verify(&token, &set).is_err());
        let encoded: Vec<String> = parts.iter().map(|part| encode(part)).collect();
        prop_assert!(verify(&encoded.join("."), &set).is_err());
    }
}

#[test]
fn a_byte_order_mark_and_halves_of_surrogate_pairs_spoil_neither_tokens_nor_key_sets() {
    let one = signer("one");
    let set = format!("\u{feff}{}", json!({ "keys": [one.jwk], "issued by": "?" })).replace('?', r"\ud83d");
    let set = KeySet::parse(set.as_bytes()).expect("a set");
    let check = |claims: &str| {
        let header = format!("\u{feff}{HEADER}");
        verify(&sign(&header, &format!("\u{feff}{claims}"), &one.key, Algorithm::ES256), &set)
    };
    let claims = check(&claims().to_string().replace("ann", r"an\ud83dn")).expect("accepted");
    assert_eq!(claims.subject(), Some("an\u{fffd}n"));
    let twice = format!(r#"{{"\ud83d":1,"\ude00":2,{}"#, &self::claims().to_string()[1..]);
    assert_eq!(said(check(&twice)), "the token is malformed: a part of it is not one JSON object");
}
