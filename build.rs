//! Names the few conditions that the source asks for, so that each is written once.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(browser, native, hosted, simd)");
    let wasm =
        std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family.split(',').any(|name| name == "wasm"));
    // `browser` is every JavaScript host: pages, workers, Node, Deno, Bun, edge isolates.
    println!("cargo::rustc-cfg={}", if wasm { "browser" } else { "native" });
    // `simd`: there are kernels for this target besides the scalar ones.
    let feature = |name: &str| {
        std::env::var("CARGO_CFG_TARGET_FEATURE")
            .is_ok_and(|features| features.split(',').any(|feature| feature == name))
    };
    let architecture = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if matches!(&*architecture, "x86_64" | "aarch64") || (architecture == "wasm32" && feature("simd128")) {
        println!("cargo::rustc-cfg=simd");
    }
    // `hosted`: there is an event loop to run tasks and timers on, JavaScript's or tokio's.
    let feature = if wasm { "CARGO_FEATURE_WASM" } else { "CARGO_FEATURE_SERVER" };
    if std::env::var_os(feature).is_some() {
        println!("cargo::rustc-cfg=hosted");
    }
}
