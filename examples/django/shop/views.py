"""Views, each of which is one transaction."""

from django.http import HttpRequest, JsonResponse

from pgjobq.django import enqueue
from shop.jobs import write_invoice
from shop.models import Order


def place_order(request: HttpRequest, customer: str) -> JsonResponse:
    """Save an order, and enqueue its invoice. Both happen, or neither."""
    order = Order.objects.create(customer=customer)
    job_id = enqueue(write_invoice, {"order_id": order.pk})
    if request.GET.get("fail"):
        raise RuntimeError("the request fails after enqueue, so there is no order and no job")
    return JsonResponse({"order": order.pk, "job": job_id})
