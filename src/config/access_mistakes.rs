//! Tests of mistakes in the access settings (authorizers, credentials, API keys, usage plans) and of their messages.

use super::load;

/// A correct API, in lines 1 to 12. Each test changes a line, or adds its mistake below.
const API: &str = "\
apis:
  chat:
    routeSelectionExpression: $request.body.action
    authorizers:
      session: { authorizerType: REQUEST, authorizerUri: 'http://127.0.0.1:9000/auth' }
      oidc: { authorizerType: JWT, identitySource: [ route.request.querystring.t ], jwtConfiguration: { issuer: 'https://id.example.com', audience: [ chat ] } }
    integrations: { backend: { integrationType: AWS_PROXY, integrationUri: 'http://127.0.0.1:9000/' } }
    routes:
      $connect: { target: integrations/backend, authorizationType: CUSTOM, authorizerId: session }
      $default: { target: integrations/backend }
    stages: { prod: { stageVariables: { path: a } } }
region: us-east-1
";

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let environment = |name: &str| (name == "SECRET").then(|| "hunter2".to_owned());
    let problems = load(text, &environment).err().unwrap_or_default();
    let told: Vec<String> = problems.iter().map(|p| format!("{}: {}: {}", p.line, p.path, p.message)).collect();
    let matches = |(told, expected): (&String, &&str)| told.starts_with(expected);
    assert!(told.len() == expected.len() && told.iter().zip(expected).all(matches), "{told:#?} in\n{text}");
    assert!(!told.concat().contains("hunter2"), "a secret is shown in\n{text}");
}

#[track_caller]
fn changed(from: &str, to: &str, expected: &[&str]) {
    assert!(API.contains(from), "{from}");
    check(&API.replacen(from, to, 1), expected);
}

#[track_caller]
fn below(text: &str, expected: &[&str]) {
    check(&format!("{API}{text}"), expected);
}

#[test]
fn authorizers_that_cannot_work() {
    let session = "authorizerUri: 'http://127.0.0.1:9000/auth'";
    let with = |more: &str| format!("{session}, {more}");
    check(API, &[]);
    changed(session, "name: x", &["5: apis.chat.authorizers.session.name: unknown key"]);
    changed(
        ", authorizerUri: 'http://127.0.0.1:9000/auth'",
        "",
        &["5: apis.chat.authorizers.session: `authorizerUri` is missing"],
    );
    changed(
        session,
        "authorizerUri: 'ftp://x/'",
        &["5: apis.chat.authorizers.session.authorizerUri: `ftp://x/` is not an `http://` or `https://` URL"],
    );
    changed(
        session,
        "authorizerUri: 'http://x/${stageVariables.nope}'",
        &["5: apis.chat.authorizers.session.authorizerUri: stage `prod` has no variable `nope`"],
    );
    changed(session, "authorizerUri: 'http://x/${stageVariables.path}'", &[]);
    changed(
        session,
        &with("identitySource: [ $request.header.A ]"),
        &["5: apis.chat.authorizers.session.identitySource[0]: Invalid request identity source expression: \
         $request.header.A."],
    );
    changed(session, &with("identitySource: [ '' ]"), &[]);
    changed(
        session,
        &with("authorizerResultTtlInSeconds: 5"),
        &["5: apis.chat.authorizers.session.authorizerResultTtlInSeconds: without an identity source"],
    );
    changed(
        session,
        &with("refreshRouteKey: r"),
        &["5: apis.chat.authorizers.session.refreshRouteKey: only the tokens"],
    );
    changed(
        "authorizerType: REQUEST",
        "authorizerType: TOKEN",
        &["5: apis.chat.authorizers.session.authorizerType: `TOKEN` is not one of the choices"],
    );

    let oidc = "identitySource: [ route.request.querystring.t ]";
    let one_place = "6: apis.chat.authorizers.oidc.identitySource: a token is in one place";
    changed(oidc, "identitySource: []", &[one_place]);
    changed(oidc, "identitySource: [ context.connectionId ]", &[one_place]);
    changed(oidc, "identitySource: [ route.request.querystring.t, route.request.header.a ]", &[one_place]);
    changed(
        oidc,
        &format!("{oidc}, refreshRouteKey: $default"),
        &["6: apis.chat.authorizers.oidc.refreshRouteKey: allowed: a key that no route has"],
    );
    changed(
        oidc,
        &format!("{oidc}, tokenExpiration: {{ closeCode: 2000 }}"),
        &["6: apis.chat.authorizers.oidc.tokenExpiration.closeCode: allowed: 1008, or 3000 to 4999"],
    );
    let issuer = "6: apis.chat.authorizers.oidc.jwtConfiguration.issuer: `http://id.example.com` is not an https URL";
    changed("https://id.example.com", "http://id.example.com", &[issuer]);
    changed("https://id.example.com", "http://127.0.0.1:1", &[]);
    changed("audience: [ chat ]", "audience: []", &["6: apis.chat.authorizers.oidc.jwtConfiguration.audience:"]);
}

#[test]
fn routes_that_ask_for_what_there_is_not() {
    let connect = "authorizationType: CUSTOM, authorizerId: session";
    changed(connect, "authorizationType: CUSTOM", &["9: apis.chat.routes.$connect: `authorizerId` is missing"]);
    changed(
        connect,
        "authorizationType: CUSTOM, authorizerId: nope",
        &["9: apis.chat.routes.$connect.authorizerId: there is no authorizer `nope`; this API has: oidc, session"],
    );
    changed(
        connect,
        "authorizationType: JWT, authorizerId: session",
        &["9: apis.chat.routes.$connect.authorizerId: `session` has another type"],
    );
    changed(
        connect,
        "authorizationType: AWS_IAM, authorizerId: session",
        &["9: apis.chat.routes.$connect.authorizerId: only `CUSTOM` and `JWT` have an authorizer"],
    );
    changed(
        connect,
        &format!("{connect}, authorizationScopes: [ a ]"),
        &["9: apis.chat.routes.$connect.authorizationScopes: only tokens have scopes"],
    );
    changed(
        "$default: { target: integrations/backend }",
        "$default: { target: integrations/backend, apiKeyRequired: true, authorizationType: AWS_IAM }",
        &[
            "10: apis.chat.routes.$default.apiKeyRequired: API keys are restricted to the $connect route only",
            "10: apis.chat.routes.$default.authorizationType: authorization is restricted to the $connect route only",
        ],
    );
    changed(
        "    authorizers:",
        "    apiKeySelectionExpression: $request.header.key\n    authorizers:",
        &["4: apis.chat.apiKeySelectionExpression: allowed: `$request.header.x-api-key`"],
    );
}

#[test]
fn keys_and_plans_that_do_not_fit() {
    below(
        "credentials: { a: { accessKeyId: A, secretAccessKey: '${env:SECRET}' }, b: { accessKeyId: A, secretAccessKey: x } }",
        &["13: credentials.b.accessKeyId: `a` has the same accessKeyId"],
    );
    below(
        "credentials: { a: { accessKeyId: A, secretAccessKey: x, policyDocument: { Statement: [ { Effect: Allow, Action: '*' } ] } } }",
        &["13: credentials.a.policyDocument.Statement[0]: one of `Resource` and `NotResource` is needed"],
    );
    below(
        "credentials: { a: { accessKeyId: A, secretAccessKey: x, sessionToken: x, expiration: soon } }",
        &["13: credentials.a.expiration: `soon` is not an RFC 3339 time"],
    );
    below(
        "credentials: { a: { accessKeyId: A, secretAccessKey: x, expiration: 2026-12-31T00:00:00Z } }",
        &["13: credentials.a.expiration: only temporary credentials expire"],
    );
    below(
        "apiKeys: { a: { value: '${env:SECRET}' }, b: { value: '${env:SECRET}' } }",
        &["13: apiKeys.b.value: `a` has the same value"],
    );
    below(
        "apiKeys: { a: { value: x } }\nusagePlans: { p: { apiStages: [ 'chat:prod', 'chat:nope', chat ], apiKeys: [ a, b ] } }",
        &[
            "14: usagePlans.p.apiKeys[1]: there is no key `b` in `apiKeys`",
            "14: usagePlans.p.apiStages[1]: there is no stage `chat:nope`",
            "14: usagePlans.p.apiStages[2]: there is no stage `chat`",
        ],
    );
    below(
        "apiKeys: { a: { value: x } }\nusagePlans: { p: { apiStages: [ 'chat:prod' ], apiKeys: [ a ] }, q: { apiStages: [ 'chat:prod' ], apiKeys: [ a ] } }",
        &["14: usagePlans.q.apiKeys[0]: `a` has the plan `p` for `chat:prod` already"],
    );
    below(
        "usagePlans: { p: { apiStages: [], apiKeys: [], quota: { limit: 0, period: YEAR } } }",
        &[
            "13: usagePlans.p.quota.limit: `0` is out of range",
            "13: usagePlans.p.quota.period: `YEAR` is not one of the choices",
        ],
    );
}
