//! Servers that accept JWTs: operator, accounts and users.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use nkeys::KeyPair;

/// A NATS JWT: claims signed with the key of the issuer.
pub fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: serde_json::Value) -> String {
    let header = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
    let claims = serde_json::json!({
        "jti": format!("{name}-{}", subject.public_key()),
        "iat": 1_700_000_000,
        "iss": issuer.public_key(),
        "name": name,
        "sub": subject.public_key(),
        "nats": nats,
    });
    let encode = |text: &str| BASE64URL.encode(text);
    let signed = format!("{}.{}", encode(header), encode(&claims.to_string()));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL.encode(signature))
}

/// Returns the configuration of a server with one JetStream account, and the key of the account.
pub fn operator_config() -> (String, KeyPair) {
    let (operator, account, system) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_account(),
    );
    let unlimited = serde_json::json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1,
        "consumer": -1,
    });
    let of_account = |limits: serde_json::Value| serde_json::json!({ "type": "account", "version": 2, "limits": limits });
    let operator_jwt = jwt(
        &operator,
        &operator,
        "op",
        serde_json::json!({
            "type": "operator", "version": 2, "system_account": system.public_key()
        }),
    );
    let account_jwt = jwt(&operator, &account, "app", of_account(unlimited.clone()));
    let mut without_jetstream = unlimited;
    for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
        without_jetstream[limit] = 0.into();
    }
    let system_jwt = jwt(&operator, &system, "sys", of_account(without_jetstream));
    let config = format!(
        "operator: {operator_jwt}\nsystem_account: {}\nresolver: MEMORY\n\
         resolver_preload {{ {}: {account_jwt}, {}: {system_jwt} }}",
        system.public_key(),
        account.public_key(),
        system.public_key(),
    );
    (config, account)
}

/// Returns the JWT of a user of the account.
pub fn user_jwt(account: &KeyPair, user: &KeyPair) -> String {
    let claims = serde_json::json!({
        "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1
    });
    jwt(account, user, "user", claims)
}
