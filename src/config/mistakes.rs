//! Tests of mistakes and their messages, from the text of a file to its problems.

use super::load;

fn environment(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("hunter2".to_owned()),
        "BIG" => Some("99999999".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

/// A correct API, in lines 1 to 11. Each test adds its mistake below.
pub(super) const API: &str = "\
apis:
  chat:
    routeSelectionExpression: $request.body.action
    integrations:
      backend:
        integrationType: AWS_PROXY
        integrationUri: http://127.0.0.1:9000/
    routes:
      $default: { target: integrations/backend }
    stages:
      prod: {}
";

/// Checks the problems of `text`, each as `LINE: PATH: MESSAGE`.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let problems = load(text, &environment).err().unwrap_or_default();
    let told: Vec<String> = problems.iter().map(|p| format!("{}: {}: {}", p.line, p.path, p.message)).collect();
    assert_eq!(told, expected, "in\n{text}");
    assert!(!told.concat().contains("hunter2"), "a secret is shown in\n{text}");
}

/// Checks the problems of `text` below [`API`].
#[track_caller]
fn check_api(text: &str, expected: &[&str]) {
    check(&format!("{API}{text}"), expected);
}

/// Checks the problems of `text` above [`API`].
#[track_caller]
fn check_above_api(text: &str, expected: &[&str]) {
    check(&format!("{text}{API}"), expected);
}

const LISTENER_KEYS: &str =
    "allowed: `address`, `connectionsApi`, `trustedProxies`, `proxyProtocol`, `allowedHosts`, `tls`";

#[test]
fn text_that_is_no_yaml_or_more_than_yaml_we_take() {
    check("region: [a\n", &["2: : not valid YAML: while parsing a flow sequence, expected ',' or ']'"]);
    check("drain: {}\n---\nlimits: {}\n", &["3: : a second document begins; allowed: one document in a file"]);
    check("- a\n", &["1: : found a list; allowed: a mapping"]);
    check("text", &["1: : found text; allowed: a mapping"]);
    check("region: !secret x\n", &["1: region: tag `secret` is unknown; allowed: values without a tag"]);
    check("region: !!int x\n", &["1: region: the value does not fit its tag, or an alias is inside its own anchor"]);
    check(
        "limits: &l\n  connections: 5\nkeepAlive:\n  <<: *l\n",
        &["4: keepAlive[\"<<\"]: merge keys are not supported; write the keys themselves"],
    );
    check(
        "1: x\ntrue: y\n~: z\n",
        &[
            "1: 1: the key is a number; allowed: text, so put it in quotes",
            "2: true: the key is a boolean; allowed: text, so put it in quotes",
            "3: null: the key is null; allowed: text, so put it in quotes",
        ],
    );
    check("drain:\n  ? [a]\n  : b\n", &["2: drain: a key is a list, a mapping or tagged; allowed: text"]);
    check(
        "drain:\n  graceMillis: .inf\n",
        &["2: drain.graceMillis: the number is infinite or undefined; allowed: finite numbers"],
    );
}

#[test]
fn keys_that_are_there_twice() {
    check(
        "region: a\nlimits:\n  connections: 1\n  connections: 2\n  connections: 3\n\"region\": b\nregion: c\n",
        &[
            "4: limits.connections: the key occurs twice; allowed: once",
            "5: limits.connections: the key occurs twice; allowed: once",
            "6: region: the key occurs twice; allowed: once",
            "7: region: the key occurs twice; allowed: once",
        ],
    );
}

#[test]
fn files_that_would_take_too_much() {
    let too_deep = "1: : brackets or blocks are nested too deeply, or not closed; allowed: 64 levels";
    check(&"[".repeat(100_000), &[too_deep]);
    check(&"{a: ".repeat(100_000), &[too_deep]);
    check(&"- ".repeat(100_000), &[too_deep]);
    check(&"? ".repeat(100_000), &[too_deep]);
    check(&": - ".repeat(100_000), &[too_deep]);
    let steps: String = (0..100).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    check(&steps, &["65: : brackets or blocks are nested too deeply, or not closed; allowed: 64 levels"]);
    check(&" ".repeat(1024 * 1024 + 1), &["0: : the file is too large; allowed: 1048576 bytes"]);
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (from, to) in ["ab", "bc", "cd", "de", "ef", "fg"].iter().map(|pair| pair.split_at(1)) {
        bomb.push_str(&format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 10].join(", ")));
    }
    check(
        &bomb,
        &["5: : not valid YAML: alias expansion exceeded the maximum node budget (possible billion-laughs attack)"],
    );
}

#[test]
fn an_empty_whole_though_its_parts_are_right() {
    let no_api = "1: apis: there is no API, so no client could connect; allowed: at least one";
    for text in ["", "\n", "# nothing\n", "{}", "\u{feff}{}", "null", "apis: {}", "region: us-east-1\n"] {
        check(text, &[no_api]);
    }
    check("---\n", &[&no_api.replacen('1', "2", 1)]);
    check("listeners:\n  public: { address: 127.0.0.1:0 }\n", &[no_api]);
    let no_route = "there is no route, so no backend would get events of this API; allowed: at least one, such as \
                    `$default`, or `$connect` where clients only listen";
    let routes = "    routes:\n      $default: { target: integrations/backend }\n";
    check(&API.replace(routes, ""), &[&format!("2: apis.chat.routes: {no_route}")]);
    check(&API.replace(routes, "    routes: {}\n"), &[&format!("8: apis.chat.routes: {no_route}")]);
    check(&API.replace("$default", "$connect"), &[]);
    check(
        &API.replace("    stages:\n      prod: {}\n", "    stages: {}\n"),
        &[
            "10: apis.chat.stages: there is no stage, so no client could connect to this API; allowed: at least one, such \
           as `prod: {}`",
        ],
    );
    check_api(
        "domainNames: { a.test: { apiMappings: [] } }\n",
        &[
            "12: domainNames[\"a.test\"].apiMappings: the list is empty, so this domain would lead to no API; allowed: at \
         least one mapping",
        ],
    );
    check("apis:\n", &["1: apis: found nothing; allowed: a mapping"]);
    check("apis:\n  chat:\n", &["2: apis.chat: found nothing; allowed: a mapping"]);
}

#[test]
fn secrets_that_are_empty() {
    let variable = "environment variable `EMPTY` is empty; set it or write `${env:EMPTY:-default}`";
    check("registry:\n  password: ${env:EMPTY}\n", &[&format!("2: registry.password: {variable}")]);
    check("registry:\n  url: redis://:${env:EMPTY}@a/\n", &[&format!("2: registry.url: {variable}")]);
    check("registry:\n  url:\n  - redis://:${env:EMPTY}@a/\n", &[&format!("3: registry.url[0]: {variable}")]);
    check("cluster:\n  secret: ${env:EMPTY}\n", &[&format!("2: cluster.secret: {variable}")]);
    check(
        "tracing:\n  otlpHeaders:\n    authorization: Bearer ${env:EMPTY}\n",
        &[&format!("3: tracing.otlpHeaders.authorization: {variable}")],
    );
    check("apiKeys:\n  mobile: { value: \"${env:EMPTY}\" }\n", &[&format!("2: apiKeys.mobile.value: {variable}")]);
    check(
        "credentials:\n  a: { accessKeyId: a, secretAccessKey: \"${env:EMPTY}\", sessionToken: \"${env:EMPTY}\" }\n",
        &[
            &format!("2: credentials.a.secretAccessKey: {variable}"),
            &format!("2: credentials.a.sessionToken: {variable}"),
        ],
    );
    check(
        &API.replace("  integrationUri", "  signing: { secrets: [ \"${env:EMPTY}\" ] }\n        integrationUri"),
        &[&format!("7: apis.chat.integrations.backend.signing.secrets[0]: {variable}")],
    );
    for (setting, place) in [("password: ''", "password"), ("username: ''", "username")] {
        let expected = format!("2: registry.{place}: the text has 0 characters; allowed: 1 to 1024 characters");
        check(&format!("registry:\n  {setting}\n"), &[&expected]);
    }
    // A value that is not a secret may be empty.
    let stage = "      test: { stageVariables: { path: \"${env:EMPTY}\" } }\n";
    check_api(stage, &[]);
    check_api(&stage.replace("${env:EMPTY}", "${env:EMPTY:-}"), &[]);
}

#[test]
fn names_that_nobody_knows() {
    check(
        "listeners:\n  public:\n    adress: 127.0.0.1:1\n",
        &[&format!("3: listeners.public.adress: unknown key (did you mean `address`?); {LISTENER_KEYS}")],
    );
    check("listeners:\n  public:\n    zzz: 1\n", &[&format!("3: listeners.public.zzz: unknown key; {LISTENER_KEYS}")]);
    check(
        "drain:\n  grace_millis: 1\n",
        &["2: drain.grace_millis: unknown key (did you mean `graceMillis`?); allowed: `graceMillis`"],
    );
    check(
        "\"odd key\": 1\n",
        &[
            "1: [\"odd key\"]: unknown key; allowed: `listeners`, `registry`, `cluster`, `drain`, `disconnect`, `region`, \
         `accountId`, `limits`, `throttle`, `keepAlive`, `callbackBaseUrl`, `explain`, `tracing`, `egress`, `domainNames`, \
         `credentials`, `apiKeys`, `usagePlans`, `apis`",
        ],
    );
    check_api(
        "      test: { stageVariable: {} }\n",
        &["12: apis.chat.stages.test.stageVariable: unknown key (did you mean `stageVariables`?); allowed: \
         `stageVariables`, `defaultRouteSettings`, `routeSettings`, `accessLogSettings`, `description`"],
    );
    check_api(
        "      test:\n        defaultRouteSettings:\n          throttlingRateLimits: 1\n",
        &["14: apis.chat.stages.test.defaultRouteSettings.throttlingRateLimits: unknown key (did you mean \
         `throttlingRateLimit`?); allowed: `throttlingRateLimit`, `throttlingBurstLimit`, `loggingLevel`, \
         `dataTraceEnabled`, `detailedMetricsEnabled`"],
    );
}

#[test]
fn keys_that_are_missing() {
    check(
        "apis:\n  chat: {}\n",
        &[
            "2: apis.chat: required key `routeSelectionExpression` is missing",
            "2: apis.chat: required key `stages` is missing",
        ],
    );
    check(
        "apis:\n  chat:\n    routeSelectionExpression: a\n    stages: {}\n    routes:\n      $connect: {}\n",
        &["6: apis.chat.routes.$connect: required key `target` is missing"],
    );
}

#[test]
fn values_of_the_wrong_type() {
    check("accountId: 000000000000\n", &["1: accountId: found the number `0`; allowed: text, so put it in quotes"]);
    check("region: true\n", &["1: region: found `true`; allowed: text, so put it in quotes"]);
    check("region: [a]\n", &["1: region: found a list; allowed: text"]);
    check("listeners:\n", &["1: listeners: found nothing; allowed: a mapping"]);
    check("drain: 5\n", &["1: drain: found the number `5`; allowed: a mapping"]);
    check("drain:\n  graceMillis: \"5000\"\n", &["2: drain.graceMillis: found text; allowed: an integer"]);
    check("drain:\n  graceMillis: 5000.5\n", &["2: drain.graceMillis: found the number `5000.5`; allowed: an integer"]);
    check("callbackBaseUrl: 1\n", &["1: callbackBaseUrl: found the number `1`; allowed: text, so put it in quotes"]);
    check(
        "listeners:\n  public:\n    trustedProxies: 10.0.0.0/8\n",
        &["3: listeners.public.trustedProxies: found text; allowed: a list"],
    );
    check_api(
        "      test: { defaultRouteSettings: 5 }\n",
        &["12: apis.chat.stages.test.defaultRouteSettings: found the number `5`; allowed: a mapping"],
    );
    check_api(
        "      test: { defaultRouteSettings: { throttlingRateLimit: fast } }\n",
        &["12: apis.chat.stages.test.defaultRouteSettings.throttlingRateLimit: found text; allowed: a number"],
    );
}

#[test]
fn values_out_of_bounds() {
    check("drain:\n  graceMillis: 99\n", &["2: drain.graceMillis: `99` is out of range; allowed: 100 to 86400000"]);
    check("limits:\n  connections: -1\n", &["2: limits.connections: `-1` is out of range; allowed: 0 to 4294967295"]);
    check(
        "limits:\n  connections: 4294967296\n",
        &["2: limits.connections: `4294967296` is out of range; allowed: 0 to 4294967295"],
    );
    check(
        "limits:\n  messageBytes: 0\n  concurrentDispatches: 1e30\n",
        &[
            "2: limits.messageBytes: `0` is out of range; allowed: 1 to 67108864",
            "3: limits.concurrentDispatches: `1e+30` is out of range; allowed: 1 to 1024",
        ],
    );
    check_api(
        "      test: { defaultRouteSettings: { throttlingRateLimit: 0 } }\n",
        &[
            "12: apis.chat.stages.test.defaultRouteSettings.throttlingRateLimit: `0` is out of range; allowed: 0.001 to \
         1000000000",
        ],
    );
    check("accountId: \"12345\"\n", &["1: accountId: the text is not valid; allowed: text that matches `^[0-9]{12}$`"]);
    check("region: ''\n", &["1: region: the text has 0 characters; allowed: 1 to 64 characters"]);
    check_api(
        "    description: ''\n    domainName: ''\n",
        &["13: apis.chat.domainName: the text has 0 characters; allowed: 1 to 512 characters"],
    );
}

#[test]
fn values_that_are_no_choice() {
    let allowed = "allowed: `AWS_IAM`, `NONE`, `OFF`";
    let path = "listeners.public.connectionsApi";
    let listener = |value: &str| format!("listeners:\n  public:\n    connectionsApi: {value}\n");
    check(&listener("IAM"), &[&format!("3: {path}: `IAM` is not one of the choices; {allowed}")]);
    check(
        &listener("none"),
        &[&format!("3: {path}: `none` is not one of the choices (did you mean `NONE`?); {allowed}")],
    );
    check(&listener("false"), &[&format!("3: {path}: `false` is not one of the choices; {allowed}")]);
    check(&listener("${env:SECRET}"), &[&format!("3: {path}: the value is not one of the choices; {allowed}")]);
    check(
        "registry:\n  type: redi\n",
        &["2: registry.type: `redi` is not one of the choices (did you mean `redis`?); allowed: `memory`, `redis`"],
    );
    check("registry:\n  type: 5\n", &["2: registry.type: `5` is not one of the choices; allowed: `memory`, `redis`"]);
}

#[test]
fn texts_that_do_not_parse() {
    let allowed = "allowed: an IP address and a port, such as `127.0.0.1:8080` or `[::]:8080`";
    check(
        "listeners:\n  public: { address: localhost:80 }\n  internal:\n    address: '127.0.0.1'\n",
        &[
            &format!("2: listeners.public.address: `localhost:80` does not parse; {allowed}"),
            &format!("4: listeners.internal.address: `127.0.0.1` does not parse; {allowed}"),
        ],
    );
    check(
        "listeners:\n  public: { address: \"${env:SECRET}\" }\n",
        &[&format!(
            "2: listeners.public.address: the text (after filling in its placeholders) does not parse; {allowed}"
        )],
    );
    check(
        "listeners:\n  public:\n    trustedProxies:\n      - 10.0.0.0/8\n      - ::1\n      - 10.0.0.0/33\n",
        &["6: listeners.public.trustedProxies[2]: `10.0.0.0/33` does not parse; allowed: a network such as \
         `10.0.0.0/8`, or an IP address"],
    );
}

#[test]
fn placeholders_that_cannot_be_filled_in_or_do_not_fit() {
    check(
        "region: ${env:REGION}\n",
        &["1: region: environment variable `REGION` is not set; set it or write `${env:REGION:-default}`"],
    );
    check(
        "drain:\n  graceMillis: ${env:GRACE}\n",
        &["2: drain.graceMillis: environment variable `GRACE` is not set; set it or write `${env:GRACE:-default}`"],
    );
    check(
        "region: \"${env:REGION\"\n",
        &[
            "1: region: malformed `${env:`; allowed: `${env:NAME}` or `${env:NAME:-default}`, NAME of letters, digits and \
         `_`, the default without `${` and `}`",
        ],
    );
    check(
        "drain:\n  graceMillis: ${env:SECRET}\n",
        &["2: drain.graceMillis: found text (after filling in its placeholders); allowed: an integer"],
    );
    check(
        "drain:\n  graceMillis: ${env:BIG}\n",
        &["2: drain.graceMillis: the number is out of range; allowed: 100 to 86400000"],
    );
    check(
        "accountId: ${env:SECRET}\n",
        &["1: accountId: the text is not valid; allowed: text that matches `^[0-9]{12}$`"],
    );
    check_above_api(
        "callbackBaseUrl: ${env:SECRET}\n",
        &[
            "1: callbackBaseUrl: not a base URL; allowed: an absolute `http` or `https` URL without query and fragment, \
         such as `https://ws.example.com`",
        ],
    );
}

#[test]
fn settings_that_do_not_go_together() {
    check_above_api(
        "listeners:\n  internal:\n    address: 127.0.0.1:8080\n",
        &[
            "3: listeners.internal.address: the public listener takes the same address and port; allowed: another port, \
         or 0 for any free one",
        ],
    );
    check_above_api(
        "listeners:\n  public:\n    address: 0.0.0.0:8081\n",
        &[
            "1: listeners.internal.address: the public listener takes the same address and port; allowed: another port, \
         or 0 for any free one",
        ],
    );
    check(
        &API.replace("chat", "\"my chat\""),
        &["2: apis[\"my chat\"]: not an apiId; allowed: 1 to 64 ASCII letters, digits, `_` and `-`"],
    );
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    check(
        "region: ''\nregoin: a\ndrain:\n  graceMillis: ${env:GRACE}\nlisteners:\n  public: { address: x }\ndrain: {}\n",
        &[
            "1: region: the text has 0 characters; allowed: 1 to 64 characters",
            "2: regoin: unknown key (did you mean `region`?); allowed: `listeners`, `registry`, `cluster`, `drain`, \
         `disconnect`, `region`, `accountId`, `limits`, `throttle`, `keepAlive`, `callbackBaseUrl`, `explain`, `tracing`, \
         `egress`, `domainNames`, `credentials`, `apiKeys`, `usagePlans`, `apis`",
            "4: drain.graceMillis: environment variable `GRACE` is not set; set it or write `${env:GRACE:-default}`",
            "6: listeners.public.address: `x` does not parse; allowed: an IP address and a port, such as \
         `127.0.0.1:8080` or `[::]:8080`",
            "7: drain: the key occurs twice; allowed: once",
        ],
    );
}

#[test]
fn redis_and_the_cluster_belong_together() {
    const FINE: &str = "registry:\n  type: redis\n  url: redis://:hunter2@a/1\n  password: hunter2\n\
                        cluster:\n  secret: hunter2hunter2hunter2\n";
    check_above_api(FINE, &[]);
    check_above_api(
        "cluster: {}\n",
        &["1: cluster: a registry in memory has no cluster; allowed: only with `registry.type: redis`"],
    );
    check_above_api(
        "registry:\n  type: redis\n",
        &[
            "1: registry: required key `url` is missing; it is the address of Redis",
            "2: registry.type: `redis` needs the section `cluster`, with the `secret` that all nodes share",
        ],
    );
    check_above_api(
        "registry: { type: redis, url: 'redis://a' }\ncluster: {}\n",
        &["2: cluster: required key `secret` is missing"],
    );
    check(
        "cluster:\n  secret: hunter2\n  address: a:1\n  advertise: nowhere\n",
        &[
            "2: cluster.secret: the text has 7 characters; allowed: 16 to 1024 characters",
            "3: cluster.address: `a:1` does not parse; allowed: an IP address and a port, such as `127.0.0.1:8080` or \
             `[::]:8080`",
            "4: cluster.advertise: `nowhere` does not parse; allowed: a host and a port, such as `10.0.0.7:8082` or \
             `node-0.peers:8082`",
        ],
    );
    check_above_api(
        &format!("{FINE}  address: 127.0.0.1:8081\n"),
        &[
            "7: cluster.address: the internal listener takes the same address and port; allowed: another port, or 0 for \
           any free one",
        ],
    );
}

#[test]
fn where_redis_is_and_how_it_is_opened_is_never_shown() {
    const URL: &str =
        "the text does not parse; allowed: a URL such as `redis://127.0.0.1:6379/0`, or `rediss://` for TLS";
    check("registry:\n  url: http://:hunter2@a\n", &[&format!("2: registry.url: {URL}")]);
    check("registry:\n  url:\n  - redis://a\n  - redis://:hunter2@b/x\n", &[&format!("4: registry.url[1]: {URL}")]);
    check("registry:\n  url: 1\n", &["2: registry.url: found a number; allowed: text or a list"]);
    check("registry:\n  url: []\n", &["2: registry.url: the value does not meet `minItems` of the schema"]);
    check(
        "registry:\n  password: 4711\n",
        &["2: registry.password: found a number; allowed: text, so put it in quotes"],
    );
    check(
        "apiKeys:\n  mobile: { value: 4711 }\n",
        &["2: apiKeys.mobile.value: found a number; allowed: text, so put it in quotes"],
    );
    check(
        "registry:\n  keyPrefix: 'a{b}'\n",
        &["2: registry.keyPrefix: the text is not valid; allowed: text that matches `^[A-Za-z0-9_.:-]{1,64}$`"],
    );
}
