"""The dashboard's pages. Each is widgets, one library call, a chart or a table; streamlit is imported nowhere else."""

from costmodel.ui import anatomy, calibration, compare, cost, explore, formulas, landscape, moe, report, roofline, serve, what_if

PAGES = (
    ("explore", "Explore", ":material/show_chart:", explore.page),
    ("landscape", "Landscape", ":material/scatter_plot:", landscape.page),
    ("compare", "Compare", ":material/waterfall_chart:", compare.page),
    ("anatomy", "Anatomy", ":material/layers:", anatomy.page),
    ("moe", "MoE", ":material/hub:", moe.page),
    ("roofline", "Roofline", ":material/roofing:", roofline.page),
    ("serve", "Serve", ":material/dns:", serve.page),
    ("cost", "Cost", ":material/payments:", cost.page),
    ("what-if", "What-if", ":material/tune:", what_if.page),
    ("formulas", "Formulas", ":material/function:", formulas.page),
    ("calibration", "Calibration", ":material/straighten:", calibration.page),
    ("report", "Report", ":material/description:", report.page),
)
"""Address, title, icon and content of every page, in order."""
