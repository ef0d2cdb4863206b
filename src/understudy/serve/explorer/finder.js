export class Finder { show() {} enter() {} }
