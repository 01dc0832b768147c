"""The dashboard's frame: `costmodel app`, or `streamlit run app.py`. The pages live in costmodel/ui."""

import streamlit as st

from costmodel.figures.live import asset
from costmodel.ui import PAGES, frame

st.set_page_config(page_title="costmodel", page_icon=asset("icon.svg"), layout="wide")
st.html(frame.STYLE)
pages = [
    st.Page(page, title=title, icon=icon, url_path=path, default=not place) for place, (path, title, icon, page) in enumerate(PAGES)
]
page = st.navigation(pages, position="top")
frame.open_link()
with st.sidebar:
    frame.controls()
frame.header(page.url_path)
page.run()
frame.keep_for_good()
