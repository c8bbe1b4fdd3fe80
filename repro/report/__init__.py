"""The report: figures and tables of the paper that there are runs for, costs, and the page that holds them.

draw/ draws a DataFrame of runs on Axes and works in a notebook; exhibits/ makes of it each figure and table with its
caption and numbers; figures.py and written.py save them; page.py writes the folder.
"""
