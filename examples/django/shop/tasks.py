"""Tasks of Django's Tasks API. With Django 5.2, the package django-tasks has it."""

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

from shop.models import Order


@task(queue_name="mail")
def greet(order_id: int, *, word: str = "Hello") -> str:
    """Greet the customer of an order."""
    return f"{word}, {Order.objects.get(pk=order_id).customer}"


@task(takes_context=True)
def stumble(context: object) -> None:
    """Fail."""
    raise LookupError(f"attempt {getattr(context, 'attempt', 0)}")


@task
async def count() -> int:
    """Count the orders."""
    return await Order.objects.acount()
