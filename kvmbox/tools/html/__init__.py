"""Pages of HTML for people: one file each, without network, that shows what guests have printed.

Text, styles and scripts in one file, everything escaped. What is shown comes from the tool that asks for a
page.
"""
