"""The template of an invoice."""

from string import Template

INVOICE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Invoice $order_id</title>
<style>
  body { font: 16px/1.5 Georgia, serif; max-width: 40em; margin: 4em auto; color: #222 }
  h1 { font-size: 1.4em; border-bottom: 2px solid #336791; padding-bottom: .3em }
  table { width: 100%; border-collapse: collapse; margin-top: 2em }
  td, th { text-align: right; padding: .4em 0; border-bottom: 1px solid #ddd }
  td:first-child, th:first-child { text-align: left }
  .total td { font-weight: bold; border: 0 }
</style>
<h1>Invoice $order_id</h1>
<p>$customer<br>$email<br>$country</p>
<p>$date, $express delivery</p>
<table>
  <tr><th>Item</th><th>Quantity</th><th>Price</th><th>Amount</th></tr>
  <tr><td>$item</td><td>$quantity</td><td>$unit_price</td><td>$total</td></tr>
  <tr class="total"><td>Total</td><td></td><td></td><td>$total $currency</td></tr>
</table>
</html>
""")
