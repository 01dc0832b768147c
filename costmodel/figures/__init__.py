"""Figures as plain dicts, made from arrays: colours (palette), what all are made of (drawing), the charts of models (charts) and
of serving (servecharts), and curves that follow sliders (live). Nothing here imports plotly or streamlit.
"""
