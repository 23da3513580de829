fn main() {
    let out = std::env::var("OUT_DIR").unwrap();
    std::fs::write(format!("{out}/images.rs"), "pub type Flat=(u64,u64,u64); pub static IMAGES: &[(&str,&[u8],Option<Flat>)] = &[]; pub static PROGRAMS: &[(&str,&[u8])] = &[];").unwrap();
}
