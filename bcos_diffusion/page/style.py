"""The look of the page: dark and light by the reader's own setting, and readable at the width of a phone."""

from __future__ import annotations

STYLE = """\
:root {
  color-scheme: light dark;
  --ground: #fdfdfc; --raised: #f3f3f0; --text: #1d1f21; --soft: #595d62; --rule: #d4d4ce;
  --link: #0b57a4; --good: #0a6b3d; --bad: #b3261e;
  --s0: #b3261e; --s1: #0b62b0; --s2: #12795a; --s3: #8a5a00; --s4: #7a3fa0;
  --s5: #007a8a; --s6: #a13a72; --s7: #4c4f52; --s8: #77787b; --s9: #5d7a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #16181a; --raised: #202326; --text: #e8e8e4; --soft: #a9adb2; --rule: #3a3e42;
    --link: #8ec1ff; --good: #6fd39c; --bad: #ff9a90;
    --s0: #ff8a7d; --s1: #7dbbff; --s2: #5fd0a5; --s3: #e6b450; --s4: #cc9bf0;
    --s5: #5fd3e3; --s6: #f29bc4; --s7: #d0d2d4; --s8: #9b9da0; --s9: #b6d25c;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.55 system-ui, sans-serif }
header, main { max-width: 72rem; margin: 0 auto; padding: 0 1rem }
header { padding-top: 1.5rem }
main > section { border-top: 1px solid var(--rule); padding: 1rem 0 1.5rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.3rem; margin: .5rem 0 }
h3 { font-size: 1.1rem; margin: 1.4rem 0 .3rem }
h4, h5 { font-size: 1rem; margin: 1rem 0 .3rem }
p { max-width: 46rem; margin: .5rem 0 }
a { color: var(--link) }
.skip { position: absolute; left: -99rem }
.skip:focus { left: 1rem; top: .5rem; background: var(--ground); padding: .3rem .6rem; z-index: 2 }
nav ol { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: 1rem 0; list-style: none }
.scroll { overflow-x: auto; margin: .8rem 0; max-width: 100% }
.scroll:focus-visible, pre:focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--rule); vertical-align: top; text-align: right }
thead th { vertical-align: bottom; color: var(--soft); font-weight: 600; font-size: .88rem; min-width: 4.5rem }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--ground); z-index: 1 }
tbody th { font-weight: 500; min-width: 7rem; max-width: 16rem }
td small { display: block; color: var(--soft); font-size: .78rem; white-space: nowrap }
.prose td, .prose thead th { text-align: left }
td.best { font-weight: 700 }
td.best .sign, td.reached .sign { color: var(--good) }
td.beaten .sign, td.missed .sign { color: var(--bad) }
td.reached, td.missed, td.unknown { font-weight: 600 }
td.best small, td.beaten small { font-weight: 400 }
.notes { margin: .3rem 0 1rem; padding-left: 1.2rem; max-width: 46rem; font-size: .93rem }
summary { cursor: pointer; font-weight: 600; padding: .4rem 0 }
.missing { border-left: 4px solid var(--rule); padding: .3rem .8rem; background: var(--raised) }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); gap: 1.2rem }
figure { margin: 0 }
.chart { background: var(--raised); border-radius: 6px; padding: .7rem; min-width: 0 }
.chart figcaption { font-weight: 600; font-size: .95rem }
.chart p { font-size: .88rem; color: var(--soft) }
.chart > svg { width: 100%; height: auto; display: block }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft) }
.grid { stroke: var(--rule); stroke-width: .6; fill: none }
.axis { stroke: var(--soft); fill: none }
.diagonal { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 1 3; fill: none }
.line path { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round }
.line circle, .line polygon { fill: currentColor }
.s0 path { stroke-width: 2.8 }
.s0 { color: var(--s0) } .s1 { color: var(--s1) } .s2 { color: var(--s2) } .s3 { color: var(--s3) }
.s4 { color: var(--s4) } .s5 { color: var(--s5) } .s6 { color: var(--s6) } .s7 { color: var(--s7) }
.s8 { color: var(--s8) } .s9 { color: var(--s9) }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; list-style: none; padding: 0; margin: .4rem 0 0 }
.legend { font-size: .86rem }
.legend svg { width: 34px; height: 12px; margin-right: .35rem; vertical-align: middle }
article { margin: 1rem 0; padding: .7rem; background: var(--raised); border-radius: 6px }
article h4, article h5 { margin-top: 0 }
.pictures { display: flex; flex-wrap: wrap; gap: .7rem }
img { width: 96px; height: 96px; image-rendering: pixelated; display: block; background: #fff }
img.wide { width: auto; height: auto; max-width: 100%; image-rendering: auto }
figcaption, .maps small { font-size: .82rem; color: var(--soft) }
.maps td { text-align: left; padding: .25rem; border: 0 }
.maps img { width: 72px; height: 72px }
.maps th { min-width: 4rem; border: 0 }
.maps thead th { text-align: left; max-width: 6rem }
.maps th:first-child { background: var(--raised) }
pre { overflow-x: auto; background: var(--raised); padding: .7rem; border-radius: 6px; font-size: .88rem }
dt { font-weight: 600; margin-top: .7rem }
dd { margin: 0; max-width: 46rem }
@media (max-width: 40rem) {
  body { font-size: 15px }
  th, td { padding: .3rem .4rem }
  tbody th { min-width: 5.5rem; max-width: 8rem }
}
@media print { .scroll { overflow: visible } nav, .skip { display: none } }
"""
