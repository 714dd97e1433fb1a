"""What other projects may use to test their own training code."""
