//! How the page looks. Colours have names in light and dark; a verdict is never told by its
//! colour alone.

use crate::explore::row::{Named, Verdict};

/// The name of a verdict in class names and colours.
pub fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::ErrorSurfaced => "surfaced",
        Verdict::WrongData => "data",
        Verdict::Leak => "leak",
        Verdict::Hang => "hang",
        Verdict::Livelock => "livelock",
        Verdict::Deadlock => "deadlock",
        Verdict::ServerCrash => "server",
        Verdict::KernelCrash => "kernel",
    }
}

/// The page's style sheet.
pub fn sheet() -> String {
    let mut sheet = String::from(BASE);
    for verdict in Verdict::ALL {
        let name = class(*verdict);
        sheet += &format!(".{name}{{--c:var(--{name})}}.strip .{name}{{fill:var(--{name})}}");
    }
    sheet
}

const BASE: &str = "
:root{color-scheme:light dark;
--bg:#fbfaf8;--panel:#fff;--ink:#1d1b18;--soft:#655f56;--line:#e3dfd7;--code:#f4f1eb;--accent:#0b5d8f;
--ok:#8fbf9b;--surfaced:#d9a531;--data:#b0338f;--leak:#8a5a2b;--hang:#5f6b7a;--livelock:#d4661c;
--deadlock:#c8261b;--server:#7a3fc0;--kernel:#3a1d6e}
@media (prefers-color-scheme:dark){:root{
--bg:#15171a;--panel:#1d2024;--ink:#e9e6e1;--soft:#a39d93;--line:#33373d;--code:#262a2f;--accent:#7cc0ee;
--ok:#4a7a57;--surfaced:#e0b14a;--data:#e07cc6;--leak:#c99a67;--hang:#9aa7b8;--livelock:#f2914f;
--deadlock:#ff6b5e;--server:#b58af2;--kernel:#d2b8ff}}
*{box-sizing:border-box}
html{font:16px/1.55 ui-sans-serif,system-ui,'Segoe UI','Liberation Sans',sans-serif;background:var(--bg);color:var(--ink);-webkit-text-size-adjust:100%}
body{margin:0}
main,header.top,footer{max-width:64rem;margin:0 auto;padding:0 1.5rem}
header.top{padding-top:3rem}
h1,h2,h3{line-height:1.2;text-wrap:balance;margin:0}
h1{font-size:2.1rem;letter-spacing:-.02em}
h2{font-size:1.5rem;letter-spacing:-.01em;margin-top:3.5rem;padding-top:1.6rem;border-top:1px solid var(--line)}
h3{font-size:1.08rem;margin:2.2rem 0 .7rem}
p{margin:.5rem 0;max-width:44rem}
a{color:var(--accent)}
.eyebrow{font-size:.8rem;letter-spacing:.08em;text-transform:uppercase;color:var(--soft);margin:0 0 .4rem}
.lead{font-size:1.15rem}
.soft{color:var(--soft)}
code,.mono{font:.86em/1.5 ui-monospace,'SF Mono','DejaVu Sans Mono',monospace}
code{overflow-wrap:anywhere}
.figures{display:flex;flex-wrap:wrap;gap:1rem;margin:1.6rem 0 0;padding:0;list-style:none}
.figures li{flex:1 1 13rem;background:var(--panel);border:1px solid var(--line);border-radius:12px;padding:1rem 1.2rem}
.figures b{display:block;font-size:2rem;line-height:1.15;font-variant-numeric:tabular-nums;letter-spacing:-.02em}
.figures .bad b{color:var(--deadlock)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.4rem 0}
.scroll{overflow-x:auto}
.tables{display:flex;flex-wrap:wrap;gap:1.2rem 3rem;align-items:flex-start}
caption{text-align:left;color:var(--soft);font-size:.9rem;padding-bottom:.4rem}
th,td{padding:.34rem .9rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child{text-align:left;padding-left:0}
thead th{font-weight:600;font-size:.86rem;vertical-align:bottom}
thead th .badge{white-space:nowrap}
td.zero{color:var(--soft);opacity:.55}
td.hit{font-weight:650;box-shadow:inset 0 -2px var(--c)}
tr.sum th,tr.sum td{border-bottom:0;font-weight:600}
.badge{display:inline-flex;align-items:center;gap:.42em;font-size:.86rem;font-weight:600}
.badge::before{content:'';width:.72em;height:.72em;border-radius:3px;background:var(--c);flex:none}
.policy{border:1px solid var(--line);border-radius:99px;padding:.05rem .65rem;font-size:.84rem;background:var(--code)}
.strips{display:grid;gap:1.1rem;margin:.6rem 0 .4rem}
.strip figcaption{display:flex;gap:.8rem;align-items:baseline;margin-bottom:.25rem;flex-wrap:wrap}
figure{margin:0}
.strip svg{width:100%;height:auto;display:block;background:var(--panel);border:1px solid var(--line);border-radius:8px}
.strip text{fill:var(--soft);font:11px ui-sans-serif,system-ui,sans-serif}
.strip .lane{fill:var(--code)}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;padding:0;margin:.4rem 0;list-style:none}
.card{background:var(--panel);border:1px solid var(--line);border-left:5px solid var(--c);border-radius:10px;padding:1.1rem 1.3rem 1.2rem;margin:1rem 0}
.card header{display:flex;flex-wrap:wrap;gap:.5rem .9rem;align-items:center}
.card h4{margin:.55rem 0 .2rem;font-size:1.02rem;line-height:1.35;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.1rem;margin:.7rem 0}
dt{color:var(--soft);font-size:.9rem;padding-top:.06rem}
dd{margin:0;overflow-wrap:anywhere;min-width:0}
dd p{margin:0}
.wait{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:1rem;align-items:start;margin:.6rem 0}
.wait ol{margin:0;padding-left:1.5rem}
.wait p{margin:.5rem 0 .2rem;color:var(--soft)}
.picture{background:#fff;border:1px solid var(--line);border-radius:8px;padding:.5rem;display:block;width:100%;height:auto}
.replay{display:block;background:var(--code);border-radius:8px;padding:.5rem .8rem;user-select:all}
details{margin-top:.6rem}
summary{cursor:pointer;color:var(--accent);font-size:.92rem}
details ul{columns:19rem auto;padding-left:1.1rem;margin:.4rem 0;font-size:.92rem}
.notes{background:var(--code);border-radius:10px;padding:.7rem 1.2rem;margin:1.4rem 0}
.notes ul{margin:.2rem 0;padding-left:1.1rem}
footer{padding-top:2.5rem;padding-bottom:3rem;color:var(--soft);font-size:.9rem}
@media (max-width:34rem){dl{grid-template-columns:1fr;gap:.1rem}dd{margin-bottom:.5rem}.wait{grid-template-columns:1fr}}
@media print{.card,figure,table{break-inside:avoid}html{background:#fff}}
";
