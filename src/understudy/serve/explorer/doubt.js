export class Doubt { show() {} enter() {} }
