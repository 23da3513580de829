//! Requests to RS.

use crate::protocol;

protocol! {
    base = 0x4000;

    /// *Posted* by a service that finished its start-up and serves requests.
    Started = 1 {
        /// 0 or a negated errno: the service gives up.
        status: i64,
    };
}
