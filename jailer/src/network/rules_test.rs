use super::*;

fn card() -> Guarded {
    Guarded {
        tap: "tap0".into(),
        mac: "06:00:0a:58:00:05".parse().unwrap(),
        addresses: vec![
            "10.88.0.5/24".parse().unwrap(),
            "fd00::5/64".parse().unwrap(),
        ],
    }
}

#[test]
fn only_a_guest_s_own_addresses_pass() {
    let text = guard_rules("bantam-g", &[card()]);
    for line in [
        "iifname \"tap0\" jump card0",
        "ether saddr != 06:00:0a:58:00:05 drop",
        "ether type ip ip saddr { 10.88.0.5 } accept",
        "ether type ip6 ip6 saddr { fd00::5, fe80::/10, :: } accept",
        "@th,64,128 != { 0xfd000000000000000000000000000005, \
         0xfe800000000000000000000000000000-0xfebfffffffffffffffffffffffffffff } drop",
    ] {
        assert!(text.contains(line), "`{line}` is not in:\n{text}");
    }
}

#[test]
fn without_addresses_only_the_mac_address_is_checked() {
    let text = guard_rules(
        "t",
        &[Guarded {
            addresses: Vec::new(),
            ..card()
        }],
    );
    assert!(
        text.contains("ether saddr !=") && !text.contains("ip saddr"),
        "{text}"
    );
}

#[test]
fn a_bridge_with_any_name_has_a_table() {
    assert_eq!(translation_table("br0"), "bantam-nat-br0");
    assert_eq!(translation_table("b@r"), "bantam-nat-b/40r");
    let text = translation_rules("br0", &["10.88.0.1/24".parse().unwrap()]);
    assert!(
        text.contains(
            "ip saddr 10.88.0.0/24 ip daddr != 10.88.0.0/24 oifname != \"br0\" masquerade"
        ),
        "{text}"
    );
}

#[test]
fn an_advertised_default_route_is_recognised() {
    let route = |flags: &str| {
        format!(
            "{0} 00 {0} 00 {0} 00000400 00000001 00000000 {flags} eth0\n",
            "0".repeat(32)
        )
    };
    assert!(route_is_advertised(&route("00450003")));
    assert!(!route_is_advertised(&route("00000003")));
    assert!(!route_is_advertised("nonsense\n"));
}

#[test]
fn nft_accepts_the_rules() {
    // The rules are loaded in a network namespace of the test's own.
    std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("run as root");
        let mut undo = Undo::new(|| Ok(()));
        guard("g", &[card()], &mut undo).unwrap();
        guard("g", &[card()], &mut undo).unwrap();
        translate("br0", &card().addresses, &mut undo).unwrap();
        let list = || {
            Tool::new("nft", "nftables")
                .unwrap()
                .args(["list", "ruleset"])
                .run_to_end()
        };
        let text = list().unwrap();
        let whole = ["bantam-g", "masquerade", "hook forward"].map(|part| text.contains(part));
        assert_eq!(whole, [true; 3], "{text}");
        drop(undo);
        remove("inet bantam-nat-br0").unwrap();
        assert_eq!(list().unwrap().trim(), "");
    })
    .join()
    .unwrap();
}
