"""The dashboard's first page: `costmodel app`, or `streamlit run app.py`. Widgets, one library call, a chart and a table."""

import streamlit as st

import costmodel as cm
from costmodel.charts import COLOURS, cache_curves, cache_sentence
from costmodel.summary import COMPARISON_REMARKS, comparison_table
from costmodel.tables import readable_rows
from costmodel.units import tokens

FLAGSHIPS = ["deepseek-v3", "kimi-k2", "gemma-3-27b", "qwen3-next-80b-a3b"]
CONTEXTS = [1 << power for power in range(10, 21)]

st.set_page_config(page_title="costmodel", layout="wide")
st.title("What an LLM architecture costs")

with st.sidebar:
    names = st.multiselect("Models", cm.presets(), FLAGSHIPS, max_selections=len(COLOURS), key="models", bind="query-params")
    context = st.select_slider("Tokens of context", CONTEXTS, 1 << 17, format_func=tokens, key="context", bind="query-params")
    batch = int(st.number_input("Concurrent sequences", 1, 65_536, 1, key="batch", bind="query-params"))
    view = st.radio("Cache", ["theory", "engine"], key="view", bind="query-params", help=COMPARISON_REMARKS[0])

if not names:
    st.info("Choose one to four models.")
    st.stop()

models = [cm.load(name) for name in names]
sentence = cache_sentence(models, context, batch, view)
st.plotly_chart(cache_curves(models, context, batch, view), alt=sentence, config={"displaylogo": False})
st.write(sentence)
table = comparison_table(models, context, batch)
st.dataframe(readable_rows(table), hide_index=True)
for remark in table.remarks:
    st.caption(remark)
