"""Explore: how does memory grow with context?"""

from __future__ import annotations

import streamlit as st

from costmodel.answers.cards import Card, cards
from costmodel.answers.sentences import cache_sentence, chart_words, usual_lines
from costmodel.answers.summary import capacity_table, comparison_table
from costmodel.catalog import accelerator
from costmodel.figures.charts import cache_curves
from costmodel.figures.live import live_chart
from costmodel.ui import frame
from costmodel.ui.live import live


def page() -> None:
    """Four cards, the chart, one sentence, the live chart and the table."""
    models, now, against = frame.chosen(), frame.scenario(), frame.yardstick()
    if not models:
        st.info("Choose one to four models in the sidebar.")
        return
    with st.container(key="grid_cards"):
        for card in cards(models, now, against):
            _show(card)
    asked = (now.context, now.batch, now.weights, now.cache)
    drawn = cache_curves(models, now, against)
    frame.figure(drawn, f"{chart_words([*models, against], now)} {cache_sentence(models, now, against)}", "cache", height=460)
    st.markdown(f"**{frame.literal(cache_sentence(models, now, against))}**")
    st.caption(frame.literal(usual_lines(models, now)))
    st.subheader("Move it")
    st.caption("The curves follow while you drag; everything above follows when you let go.")
    live(live_chart(models, now, against), "live")
    st.subheader("What fits")
    frame.table(capacity_table(models, accelerator(now.accelerator), now.devices, *asked, now.view))
    st.subheader("The same in numbers")
    frame.table(comparison_table(models, *asked))


def _show(card: Card) -> None:
    """One model in a glance."""
    with st.container(border=True):
        st.metric(
            frame.literal(card.title), card.value, card.ratio, delta_color="off", delta_arrow="off", help=card.defined,
            chart_data=card.spark, chart_type="area",
        )  # fmt: skip
        st.caption("  \n".join(f"{frame.literal(label)}: **{frame.literal(value)}**" for label, value in card.facts))
