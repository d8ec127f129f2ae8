"""The steward's work on experts, as a person does it."""

from __future__ import annotations

from tests.browser.conftest import Person
from tests.fakes.admin import AdminParts
from workers.discovery import DiscoveredModel


def test_an_expert_is_found_by_what_it_can_and_by_its_state(steward: Person) -> None:
    steward.click("Experts", "link")
    steward.look("experts")
    steward.field("Search").fill("algebra")
    steward.click("Filter")
    steward.page.get_by_role("link", name="good", exact=True).wait_for()
    assert steward.page.get_by_role("link", name="worse", exact=True).count() == 0
    steward.field("State").select_option("disabled")
    steward.sees("No expert is like that")
    steward.look("experts-none")


def test_a_wrong_card_is_told_beside_its_fields_and_a_right_one_is_live(steward: Person) -> None:
    steward.expected = ["400"]
    steward.open("/admin/experts/new")
    steward.field("Id").fill("Math 7B")
    steward.field("Backend").select_option("openai")
    steward.field("Model").fill("math")
    steward.page.get_by_text("Calls", exact=True).click()
    steward.field("Max in flight").fill("many")
    steward.click("Add")
    steward.sees("must be a whole number")
    assert "http://127.0.0.1:8000/v1" in steward.page.locator(".field", has=steward.field("Base URL")).inner_text()
    assert steward.field("Id").get_attribute("aria-invalid") == "true"
    assert steward.field("Max in flight").input_value() == "many"
    steward.look("expert-form")
    steward.field("Id").fill("math-7b")
    steward.field("Base URL").fill("http://127.0.0.1:8000/v1")
    steward.field("Max in flight").fill("4")
    steward.field("Skills").fill("algebra\ngeometry")
    steward.click("Add")
    steward.sees("Added. It can be asked now")
    steward.sees("geometry")


def test_a_change_can_be_restored_from_the_history(steward: Person) -> None:
    steward.open("/admin/experts/good/edit")
    steward.field("Description").fill("Sums only")
    steward.click("Save")
    steward.sees("Saved.")
    steward.page.get_by_role("heading", name="History").scroll_into_view_if_needed()
    steward.sees("Sums only")
    steward.click("Restore what was before")
    steward.sees("Put back as it was.")
    assert steward.page.locator(".head .lead").inner_text() == "good"


def test_two_people_who_edit_one_card_do_not_undo_each_other(steward: Person) -> None:
    steward.expected = ["412"]
    steward.open("/admin/experts/good/edit")
    other = steward.page.context.new_page()
    other.goto(f"{steward.url}/admin/experts/good/edit")
    other.get_by_label("Description").fill("mine")
    other.get_by_role("button", name="Save").click()
    other.get_by_text("Saved.").wait_for()
    steward.field("Description").fill("yours")
    steward.click("Save")
    steward.sees("was changed meanwhile")
    assert steward.field("Description").input_value() == "yours"


def test_a_deletion_is_confirmed_and_can_be_undone(steward: Person) -> None:
    steward.open("/admin/experts/worse")
    steward.click("Delete")
    steward.page.get_by_role("dialog").get_by_role("button", name="Keep it").click()
    steward.click("Delete")
    steward.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    steward.sees("is deleted.")
    assert steward.page.get_by_role("link", name="worse", exact=True).count() == 0
    steward.click("Undo")
    steward.sees("Put back as it was.")
    assert steward.page.get_by_role("heading", level=1).inner_text().startswith("worse")


def test_an_expert_that_a_strategy_names_says_so_and_stays(steward: Person) -> None:
    steward.open("/admin/experts/bad")
    steward.click("Delete")
    steward.sees("These strategies name it")
    steward.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    steward.page.get_by_role("alert").get_by_text("panel").wait_for()


def test_an_expert_is_disabled_checked_and_cloned(steward: Person) -> None:
    steward.open("/admin/experts/good")
    steward.click("Check")
    steward.sees("It answers")
    steward.click("Disable")
    steward.sees("Disabled: it is not chosen any more.")
    steward.look("expert")
    steward.click("Enable")
    steward.sees("Enabled: it may be chosen again.")
    steward.click("Clone", "link")
    assert steward.field("Id").input_value() == "good-copy"
    steward.click("Add")
    steward.sees("Added. It can be asked now")


def test_the_models_of_a_server_become_experts(steward: Person, parts: AdminParts) -> None:
    parts.pool.served = [DiscoveredModel("Qwen/Qwen3-8B", 32768, None, "vllm"), DiscoveredModel("law-lora", 8192, "Qwen/Qwen3-8B", "vllm")]
    steward.open("/admin/experts/discover")
    steward.field("Address of the server").fill("http://127.0.0.1:8000/v1")
    steward.click("Look what it serves")
    steward.sees("Qwen/Qwen3-8B")
    steward.look("discover")
    steward.field("Add law-lora").uncheck()
    steward.click("Add the chosen")
    steward.sees("Added:")
    steward.open("/admin/experts/qwen3-8b")
    steward.page.get_by_role("heading", level=1).get_by_text("qwen3-8b").wait_for()


def test_the_registry_goes_out_as_yaml_and_comes_back_after_a_look_at_what_changes(steward: Person) -> None:
    steward.open("/admin/experts")
    with steward.page.expect_download() as saved:
        steward.click("Export YAML", "link")
    text = saved.value.path().read_text()
    steward.open("/admin/experts/import")
    steward.field("YAML").fill(text.replace("model: worse", "model: much-worse"))
    steward.click("Show what would change")
    steward.sees("What would change")
    steward.look("import")
    steward.click("Make it so")
    steward.sees("The registry is as the file says.")
    steward.open("/admin/experts/worse")
    steward.sees("much-worse")
