"""Orders and their invoices."""

from django.db import models


class Order(models.Model):
    """An order."""

    customer = models.CharField(max_length=100)
    invoice = models.TextField(blank=True)
