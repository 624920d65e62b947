use std::{fs, iter, path::PathBuf};

use tempfile::TempDir;

use super::{
    super::{value::LogFormat, wallets::WalletConfig},
    *,
};

/// A folder with this text as its `proxy.toml`.
fn folder(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// The mistakes, one a line, without the name of the temporary folder.
fn mistakes(text: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Vec<String> {
    let (folder, path) = folder(text);
    let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let mistakes = Config::load(Some(&path), environment(variables), &flags).unwrap_err();
    let folder = format!("{}/", folder.path().display());
    mistakes.to_string().lines().map(|line| line.replace(&folder, "")).collect()
}

#[test]
fn flag_goes_before_variable_before_file_before_default() {
    let (_folder, path) = folder("listen = '[::1]:1'\nlog.level = 'warn'\nlog.format = 'text'");
    let variables = environment(&[
        ("AGENTPMT_PROXY_LISTEN", "[::1]:2"),
        ("AGENTPMT_PROXY_LOG__LEVEL", "debug"),
    ]);
    let flags = [("listen", "[::1]:3".to_owned())];
    let config = Config::load(Some(&path), variables, &flags).unwrap();
    assert_eq!(config.listen[0].to_string(), "[::1]:3");
    assert_eq!(config.listen.len(), 1);
    assert_eq!(config.log.level, tracing::Level::DEBUG);
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.upstream.url.to_string(), "https://www.agentpmt.com");
    assert_eq!(config.source, Some(path));
}

#[test]
fn every_mistake_is_reported_in_one_run() {
    let text = "
        listen = ['127.0.0.1:8402', '8402']
        walet = '0x00'

        [upstream]
        url = 'http://www.agentpmt.com'
        timeout = 60
        [log]
        level = 'loud'
    ";
    let variables = [("AGENTPMT_PROXY_WALLET", "0x17"), ("AGENTPMT_PROXY_KEYS", "")];
    let found = mistakes(text, &variables, &[("upstream.url", "ftp://x"), ("listen", "8402")]);
    let expected = [
        "proxy.toml:2: listen: the address is missing",
        "proxy.toml:3: walet: no such setting; did you mean wallet?",
        "proxy.toml:6: upstream.url: plain http is only for an upstream on this machine",
        "proxy.toml:7: upstream.timeout: expected a string in quotes such as \"60s\", found integer",
        "proxy.toml:9: log.level: expected one of error, warn, info, debug, trace",
        "AGENTPMT_PROXY_WALLET: an address is 0x and 40 hexadecimal digits",
        "AGENTPMT_PROXY_KEYS: a path is needed",
        "--listen: the address is missing",
        "--upstream: the URL must begin with https://",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, start) in found.iter().zip(expected) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn a_mistake_counts_even_where_another_value_wins() {
    let found = mistakes("log.level = 'loud'", &[("AGENTPMT_PROXY_LOG__LEVEL", "info")], &[]);
    assert_eq!(found, ["proxy.toml:1: log.level: expected one of error, warn, info, debug, trace"]);
}

#[test]
fn after_a_syntax_error_environment_and_flags_are_still_checked() {
    let found = mistakes("\nlisten = ", &[("AGENTPMT_PROXY_KEYS", "")], &[("listen", "")]);
    assert!(found[0].starts_with("proxy.toml:2: not TOML: "), "{found:#?}");
    assert_eq!(found.len(), 3);
}

#[test]
fn an_unknown_variable_is_met_with_the_nearest_one() {
    let near = |name| mistakes("", &[(name, "x")], &[]).remove(0);
    let cases = [
        ("AGENTPMT_PROXY_LISTN", "; did you mean AGENTPMT_PROXY_LISTEN?"),
        ("AGENTPMT_PROXY_UPSTREAM_URL", "; did you mean AGENTPMT_PROXY_UPSTREAM__URL?"),
        ("AGENTPMT_PROXY_PASWORD", "; did you mean AGENTPMT_PROXY_PASSWORD?"),
        ("AGENTPMT_PROXY_COLOUR", ""),
    ];
    for (name, hint) in cases {
        assert_eq!(near(name), format!("{name}: no such setting{hint}"));
    }
}

#[test]
fn other_programs_variables_and_the_password_are_passed_over() {
    let (_folder, path) = folder("");
    let variables = environment(&[
        ("HOME", "/root"),
        ("AGENTPMT_PROXY_PASSWORD", "hunter2"),
        ("AGENTPMT_PROXY_CONFIG", "proxy.toml"),
    ]);
    let config = Config::load(Some(&path), variables, &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn the_links_to_a_service_of_our_name_are_passed_over() {
    let (_folder, path) = folder("");
    let variables = environment(&[
        ("AGENTPMT_PROXY_PORT", "tcp://10.96.0.17:8402"),
        ("AGENTPMT_PROXY_PORT_8402_TCP_ADDR", "10.96.0.17"),
        ("AGENTPMT_PROXY_SERVICE_HOST", "10.96.0.17"),
    ]);
    assert!(Config::load(Some(&path), variables, &[]).is_ok());
    let mistyped = mistakes("", &[("AGENTPMT_PROXY_PORT", "8402")], &[]);
    assert!(mistyped[0].contains("no such setting"), "{mistyped:?}");
}

#[test]
fn no_mistake_repeats_a_value() {
    let secret = "0x4646464646464646464646464646464646464646464646464646464646464646";
    let text = format!("wallet = '{secret}'\npassword = '{secret}'\nlog.level = '{secret}'");
    let variables = SETTINGS.iter().map(|setting| (variable_name(setting.key), secret));
    let variables: Vec<_> =
        variables.chain([("AGENTPMT_PROXY_PASSWORD".to_owned(), secret)]).collect();
    let variables: Vec<_> = variables.iter().map(|(name, text)| (&**name, *text)).collect();
    let url = format!("https://me:{secret}@www.agentpmt.com");
    let found = mistakes(&text, &variables, &[("upstream.url", &url), ("listen", secret)]);
    assert!(found.len() > 10, "{found:#?}");
    assert!(found.iter().all(|line| !line.contains("4646")), "{found:#?}");
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_utf_8_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let (_folder, path) = folder("");
    let variable = ("AGENTPMT_PROXY_KEYS".into(), OsString::from_vec(vec![0xff]));
    let mistakes = Config::load(Some(&path), [variable], &[]).unwrap_err();
    assert_eq!(mistakes.to_string(), "AGENTPMT_PROXY_KEYS: the value is not UTF-8");
}

#[test]
fn only_a_file_that_was_named_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let mistakes = Config::load(Some(&path), iter::empty(), &[]).unwrap_err().to_string();
    assert!(mistakes.starts_with(&format!("{}: cannot be read: ", path.display())));
    assert!(matches!(read(&path, false), Ok(None)));
    assert!(read(folder.path(), false).is_err());
}

#[test]
fn a_relative_path_starts_where_it_was_given() {
    let (folder, path) = folder("password_file = 'secret/password'");
    let config = Config::load(Some(&path), iter::empty(), &[]).unwrap();
    assert_eq!(config.keys, folder.path().join("keys"));
    assert_eq!(config.password_file, Some(folder.path().join("secret/password")));

    let variables = environment(&[("AGENTPMT_PROXY_KEYS", "mine")]);
    let flags = [("password_file", "./password".to_owned())];
    let config = Config::load(Some(&path), variables, &flags).unwrap();
    assert_eq!(config.keys, Path::new("mine"));
    assert_eq!(config.password_file, Some("./password".into()));
}

#[test]
fn an_absolute_path_stays() {
    let (_folder, path) = folder("keys = '/etc/keys'");
    let config = Config::load(Some(&path), iter::empty(), &[]).unwrap();
    assert_eq!(config.keys, Path::new("/etc/keys"));
}

/// The mistakes of the file, without its name.
fn in_file(text: &str) -> Vec<String> {
    mistakes(text, &[], &[]).iter().map(|line| line.replace("proxy.toml:", "")).collect()
}

#[test]
fn a_wrong_type_says_what_is_expected() {
    let text = "
        listen = 8402
        keys = ['a']
        expose_workflow_token = 'true'
        wallet = 0x17
        password_file = {}
        max_in_flight = '5'
        [upstream]
        url = 5
        timeout = 1.5
    ";
    let expected = [
        "2: listen: expected a string, or an array of strings such as \"localhost:8402\", \
         found integer",
        "3: keys: expected a string in quotes such as \"keys\", found array",
        "4: expose_workflow_token: expected a boolean such as false, found string",
        "5: wallet: expected a string in quotes, found integer",
        "6: password_file: expected a string in quotes, found table",
        "7: max_in_flight: expected a number such as 1024, found string",
        "9: upstream.url: expected a string in quotes such as \"https://www.agentpmt.com\", \
         found integer",
        "10: upstream.timeout: expected a string in quotes such as \"60s\", found float",
    ];
    assert_eq!(in_file(text), expected);
}

#[test]
fn a_section_must_be_a_table() {
    let expected = "1: log: expected settings under [log], found string";
    assert_eq!(in_file("log = 'debug'"), [expected]);
    let expected = "1: log: expected settings under [log], found array";
    assert_eq!(in_file("[[log]]\nlevel = 'debug'"), [expected]);
}

#[test]
fn an_unknown_key_is_met_with_the_nearest_one() {
    let cases = [
        ("lisen = ''", "1: lisen: no such setting; did you mean listen?"),
        ("timeout = ''", "1: timeout: no such setting; did you mean upstream.timeout?"),
        ("[log]\nkeys = ''", "2: log.keys: no such setting; did you mean keys?"),
        ("\n[upstraem]\nurl = ''", "2: upstraem: no such setting; did you mean upstream?"),
        (
            "[log.level]\nx = 1",
            "1: log.level: expected a string in quotes such as \"info\", found table",
        ),
        ("\"log.level\" = ''", "1: \"log.level\": no such setting; did you mean log.level?"),
        ("\n\ncolour = 'blue'", "3: colour: no such setting"),
    ];
    for (text, expected) in cases {
        assert_eq!(in_file(text), [expected]);
    }
}

#[test]
fn dotted_and_inline_keys_are_the_same_settings() {
    let url = "https://a.example";
    for text in ["upstream.url = 'U'", "upstream = { url = 'U' }", "[upstream]\n'url' = 'U'"] {
        let (_folder, path) = folder(&text.replace('U', url));
        let config = Config::load(Some(&path), iter::empty(), &[]).unwrap();
        assert_eq!(config.upstream.url.to_string(), url);
    }
}

#[test]
fn a_list_is_an_array_or_has_commas_between_its_items() {
    let (_folder, path) = folder("listen = ['unix:/a,b', '[::1]:1']");
    let listen = |variables: &[(&str, &str)], flags: &[&str]| {
        let flags: Vec<_> = flags.iter().map(|text| ("listen", (*text).to_owned())).collect();
        let config = Config::load(Some(&path), environment(variables), &flags).unwrap();
        config.listen.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let name = "AGENTPMT_PROXY_LISTEN";
    assert_eq!(listen(&[], &[]), ["unix:/a,b", "[::1]:1"]);
    assert_eq!(listen(&[(name, "[::1]:2, unix:/c,")], &[]), ["[::1]:2", "unix:/c"]);
    assert_eq!(listen(&[(name, "['unix:/c,d', '[::1]:2']")], &[]), ["unix:/c,d", "[::1]:2"]);
    assert_eq!(listen(&[], &["unix:/e,f", "[::1]:3"]), ["unix:/e,f", "[::1]:3"]);
    let (_folder, path) = folder("listen = '[::1]:1,systemd'");
    let config = Config::load(Some(&path), iter::empty(), &[]).unwrap();
    assert_eq!(config.listen.len(), 2);
    let items = "listen = [\n'[::1]:1',\n8402,\n'8402']";
    let found = in_file(items);
    assert!(found[0].starts_with("3: listen: expected a string in quotes "), "{found:?}");
    assert!(found[1].starts_with("4: listen: the address is missing"), "{found:?}");
    assert!(in_file("listen = {}")[0].ends_with(", found table"));
    assert_eq!(in_file("listen = []"), ["1: listen: name at least one place to listen at"]);
}

#[test]
fn several_wallets_are_tables_with_an_address() {
    let (one, other) = ("0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025", format!("0x{:040}", 1));
    let address = |text: &str| format!("[[wallets]]\naddress = '{text}'\n");
    let text = format!("{}password_file = 'a,b'\n{}", address(one), address(&other));
    let (folder, path) = folder(&text);
    let config = Config::load(Some(&path), iter::empty(), &[]).unwrap();
    let wallet = |address: &str, password_file: Option<PathBuf>| WalletConfig {
        address: address.parse().unwrap(),
        password_file,
    };
    let file = folder.path().join("a,b");
    assert_eq!(config.wallets, [wallet(one, Some(file)), wallet(&other, None)]);
    let array = format!("[{{address = '{other}', password_file = 'x'}}]");
    let variables = environment(&[("AGENTPMT_PROXY_WALLETS", &array)]);
    let config = Config::load(Some(&path), variables, &[]).unwrap();
    assert_eq!(config.wallets, [wallet(&other, Some("x".into()))]);

    let wrong = "[[wallets]]\naddress = '0xa'\npasword_file = 'p'\n[[wallets]]\naddress = 7\n";
    let expected = [
        "2: wallets.address: an address is 0x and 40 hexadecimal digits",
        "3: wallets.pasword_file: no such setting; did you mean password_file?",
        "5: wallets.address: expected a string in quotes, found integer",
    ];
    assert_eq!(in_file(wrong), expected);
    let lacks = "[[wallets]]\npassword_file = 'p'";
    assert_eq!(in_file(lacks), ["1: wallets: a table of it lacks address"]);
    let twice = "1: wallets: a wallet stands there twice; name each once";
    assert_eq!(in_file(&[address(one), address(one)].concat()), [twice]);
    let expected = "1: wallets: expected tables, as in [[wallets]], found string";
    assert_eq!(in_file("wallets = 'x'"), [expected]);
}

#[test]
fn a_syntax_error_has_its_line() {
    let cases = [
        ("\nlisten = \n", 2),
        ("listen = ''\n\nlisten = ''", 3),
        ("[log]\n[upstream]\n[log]\n", 3),
        ("keys = ''\nlisten = \"abc\n", 2),
        ("keys = ''\nlisten", 2),
    ];
    for (text, line) in cases {
        let message = in_file(text).remove(0);
        assert!(message.starts_with(&format!("{line}: not TOML: ")), "{text:?}: {message}");
        assert!(!message.contains("abc"), "{message}");
    }
}
