"""Handlers. A worker imports the module `jobs` of each app."""

from pgjobq import job
from shop.models import Order


@job(queue="mail")
def write_invoice(order_id: int) -> str:
    """Write the invoice of an order."""
    order = Order.objects.get(pk=order_id)
    order.invoice = f"Invoice {order.pk} for {order.customer}"
    order.save(update_fields=["invoice"])
    return order.invoice


@job
async def count_orders() -> int:
    """Count the orders, with the async ORM."""
    return await Order.objects.acount()
