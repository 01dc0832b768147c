"""The capacity planner: layouts priced (candidates), those that meet the limits, ranked (deployments), why (reasons), the plan as a
whole (plans), and its tables (tables).
"""
