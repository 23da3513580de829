//! RS's image.
#![cfg_attr(guest_image, no_std, no_main)]

rt::entry!(main);

fn main() -> ! {
    rs::main()
}
