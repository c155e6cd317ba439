"""All SQL: one repository a resource. A session is opened, committed and closed by the edge."""
