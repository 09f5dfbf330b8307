//! Finds libkosmos_edge: by $KOSMOS_LIBS, as `python -m kosmos_edge.native --libs` prints it, else by pkg-config.

use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=KOSMOS_LIBS");
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    let flags = env::var("KOSMOS_LIBS").unwrap_or_else(|_| {
        let out = Command::new("pkg-config").args(["--libs", "kosmos-edge"]).output();
        let out = out.expect("set KOSMOS_LIBS, or install pkg-config");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("pkg-config writes UTF-8")
    });
    for flag in flags.split_whitespace() {
        println!("cargo:rustc-link-arg={flag}");
    }
}
